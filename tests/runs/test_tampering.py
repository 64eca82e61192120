"""Run folders from elsewhere: edited configurations, pickles, and names that lead outside."""

from __future__ import annotations

import hashlib
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from harness.common.errors import UsageError
from harness.config.build import build_object
from harness.config.identity import RESUMABLE, differences, without_resumable
from harness.config.saved import load_settings
from harness.data import corpus
from harness.loggers.local import Local
from harness.runs.digest import digest
from harness.runs.summary import read_summary, status_of
from tests.conftest import Ended, plain
from tests.small_runs import settings, summary, train

Command = Callable[..., Ended]
TOOLS = (("evaluate",), ("sample", "--tokens", "1"))


@pytest.fixture
def copied(finished_run: Path, tmp_path: Path) -> Path:
    """The finished run, to be tampered with."""
    return Path(shutil.copytree(finished_run, tmp_path / "copied"))


def edit(run: Path, key: str, value: object) -> None:
    saved = yaml.safe_load((run / "config.yaml").read_text())
    *path, last = key.split(".")
    node = saved
    for name in path:
        node = node[name]
    assert node[last] != value
    node[last] = value
    (run / "config.yaml").write_text(yaml.safe_dump(saved))


# Edited configurations


@pytest.mark.parametrize(
    ("key", "value", "needed"),
    [
        ("model.n_head", 1, ("evaluate", "sample")),  # weights of the same shapes, other numbers
        ("model.n_embd", 32, ("evaluate", "sample")),
        ("train.ema", 0.5, ("evaluate", "sample")),
        ("eval.stride", 1, ("evaluate", "sample")),
        ("data.split", [0.5, 0.25, 0.25], ("evaluate",)),
        ("optimizer.lr", 0.5, ()),
        ("seed", 9, ()),
    ],
)
def test_an_edited_configuration_gives_no_numbers(
    key: str, value: object, needed: tuple[str, ...], command: Command, copied: Path
) -> None:
    """The field is named; what does not touch a number of the tool is let through."""
    edit(copied, key, value)
    for tool, *options in TOOLS:
        ended = command(tool, copied, *options)
        assert ended.code == (2 if tool in needed else 0), ended.err
        if tool in needed:
            assert f"config.yaml is not what the weights were trained with: {key}: " in ended.err
            assert len(ended.err.splitlines()) == 1
    ended = command("train", f"run_dir={copied}", "resume=true", "train.steps=99")
    assert ended.code == 2
    assert f"{key}: " in ended.err


def test_a_text_may_lie_elsewhere_if_it_is_the_same(
    command: Command, copied: Path, tmp_path: Path
) -> None:
    saved = load_settings(copied / "config.yaml")
    there = Path(shutil.copy(saved.data["path"], tmp_path / "elsewhere.txt"))
    edit(copied, "data.path", str(there))
    assert command("evaluate", copied).code == 0
    there.write_text(there.read_text() + "!")
    assert command("evaluate", copied).code == 2


def test_a_file_that_is_not_the_text_is_written_nowhere(
    command: Command, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is the text itself where a run's configuration says: the cache is the user's own."""
    own, planted, private = tmp_path / "own", tmp_path / "planted", tmp_path / "private"
    monkeypatch.setenv("XDG_CACHE_HOME", str(own))
    edit(copied, "cache", str(planted))
    edit(copied, "assets", [str(planted)])
    assert command("evaluate", copied).code == 0
    assert list(own.rglob("test.ids"))
    assert not planted.exists()
    shutil.rmtree(own)
    private.write_text("a private line\n" * 999)
    edit(copied, "data.path", str(private))
    ended = command("evaluate", copied)
    assert ended.code == 2
    assert "the text is not the one this run was trained on" in ended.err
    assert not own.exists()
    ended = command("train", f"run_dir={copied}", "resume=true", "train.steps=99")
    assert ended.code == 2
    assert "its corpus has changed" in ended.err
    assert not planted.exists()
    assert str(planted) in (copied / "config.yaml").read_text()  # the control


def test_a_resumed_run_has_the_users_own_cache_and_assets(
    command: Command, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the environment, or as typed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    monkeypatch.setenv("ZOO_ASSETS", str(tmp_path / "mine"))
    edit(copied, "cache", str(tmp_path / "planted"))
    edit(copied, "assets", [str(tmp_path / "planted")])
    assert command("train", f"run_dir={copied}", "resume=true", "train.steps=31").code == 0
    saved = load_settings(copied / "config.yaml")
    assert saved.cache == str(tmp_path / "own" / "language-model-zoo")
    assert saved.assets == [str(tmp_path / "mine"), "assets", "../shared/assets"]
    typed = (f"cache={tmp_path / 'typed'}", "assets=[here]", "train.steps=32")
    assert command("train", f"run_dir={copied}", "resume=true", *typed).code == 0
    saved = load_settings(copied / "config.yaml")
    assert (saved.cache, saved.assets) == (str(tmp_path / "typed"), ["here"])
    assert list((tmp_path / "typed").rglob("test.ids"))
    assert not (tmp_path / "planted").exists()


def test_what_decides_the_numbers_is_all_but_what_may_change(tmp_path: Path) -> None:
    """Every setting counts unless it is named; so does one that will be added."""
    chosen = settings(tmp_path / "a")
    left_out = {name for name in vars(chosen) if name not in without_resumable(chosen)}
    assert left_out == {name for name in RESUMABLE if "." not in name} | {"resume", "run_dir"}
    before = without_resumable(chosen)
    assert differences(before, without_resumable(settings(tmp_path / "b", "train.steps=9"))) == []
    changed = without_resumable(settings(tmp_path / "b", "seed=3", "model.bias=false"))
    assert differences(before, changed) == ["model.bias: True → False", "seed: 0 → 3"]
    assert differences(before, {}) != []


def test_the_digest_of_a_job_is_of_all_that_tells_it_from_others(tmp_path: Path) -> None:
    def of(*overrides: str) -> str:
        return digest(settings(tmp_path / "a", *overrides))

    assert of() == of("resume=true", "run_dir=x", "cache=y", "logger=[wandb]", "trust=[z]")
    several = ["seed=1", "train.steps=9", "optimizer.lr=2e-3", "eval.every=3", "observe=off"]
    assert len({of(), *map(of, several), of(f"data.path={tmp_path / 'other'}")}) == 7
    assert of("precision=auto") in {of("precision=fp32"), of("precision=bf16")}


def test_a_configuration_that_would_fill_any_memory_is_refused(tmp_path: Path) -> None:
    """Ten lines, each of ten times the one before."""
    lines = ["a0: &a0 [x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 11)]
    (tmp_path / "config.yaml").write_text("\n".join(lines))
    with pytest.raises(UsageError, match="aliases are not allowed"):
        load_settings(tmp_path / "config.yaml")


# Pickles


class Payload:
    """What runs when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.mark,)


def test_the_payload_works(tmp_path: Path) -> None:
    """The negative control of the tests below."""
    pickle.loads(pickle.dumps(Payload(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


def poison(path: Path, mark: Path) -> None:
    """Put a pickle where a file of a run is, in the format in which it would be read."""
    if path.suffix == ".pt":
        torch.save({"format": 3, "model": Payload(mark)}, path)
        sign(path)
    elif path.suffix == ".npy":
        np.save(path, np.array([Payload(mark)], dtype=object), allow_pickle=True)
    elif path.suffix == ".yaml":
        path.write_text(f"seed: !!python/object/apply:pathlib.Path.touch ['{mark}']\n")
    else:
        path.write_bytes(pickle.dumps(Payload(mark)))


def test_no_file_of_a_run_is_unpickled(
    command: Command, finished_run: Path, tmp_path: Path
) -> None:
    """Each of them, one at a time; every tool either does not mind or says it in one line."""
    mark = tmp_path / "ran"
    names = [
        path.relative_to(finished_run)
        for path in sorted(finished_run.rglob("*"))
        if path.is_file() and path.suffix not in (".sha256", ".log")
    ]
    assert {name.suffix for name in names} >= {".pt", ".npy", ".yaml", ".json", ".jsonl", ".txt"}
    refused = set()
    for number, name in enumerate(names):
        run = Path(shutil.copytree(finished_run, tmp_path / f"copied-{number}"))
        poison(run / name, mark)
        for tool, *options in (
            *TOOLS, ("sample", "--tokens", "1", "--mask-unused"), ("compare",),
            ("evaluate", "--checkpoint", "latest"),
        ):  # fmt: skip
            ended = command(tool, run, *options)
            assert not mark.exists(), (name, tool)
            assert "Traceback" not in ended.err
            assert ended.code in (0, 1, 2)
            if ended.code and tool != "compare":
                assert len(ended.err.splitlines()) == 1, ended.err
                refused.add(name.name.partition("-")[0])
        ended = command("train", f"run_dir={run}", "resume=true")
        assert not mark.exists(), name
        assert "Traceback" not in ended.err
    assert refused >= {"best", "step", "train_counts.npy", "config.yaml", "characters.txt"}


def test_the_cache_is_not_unpickled(tmp_path: Path) -> None:
    """Nor trusted: what it should hold is made again."""
    assert train(tmp_path / "a", "train.steps=1") == 0
    cached = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert cached
    mark = tmp_path / "ran"
    for path in cached:
        path.write_bytes(pickle.dumps(Payload(mark)))
    assert train(tmp_path / "b", "train.steps=1") == 0
    assert not mark.exists()
    assert summary(tmp_path / "b")["test"] == summary(tmp_path / "a")["test"]


# What is whole, by its digest, but not what a run wrote


def sign(path: Path) -> None:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()  # a digest proves no good will
    path.with_name(path.name + ".sha256").write_text(f"{sha256}  {path.name}\n")


def newest(run: Path, kind: str) -> Path:
    return max((run / "checkpoints").glob(f"{kind}-*.pt"))


FORGED: dict[str, tuple[object, str]] = {
    "a tensor": (torch.zeros(3), "is not a checkpoint: it holds a Tensor"),
    "a list": ([{"format": 3}], "is not a checkpoint: it holds a list"),
    "nearly nothing": ({"format": 3, "step": 5}, "model is missing or not of type dict"),
    "no tokenizer": ({"tokenizer": None}, "tokenizer is missing or not of type str"),
    "a step in words": ({"step": "five"}, "step is missing or not of type int"),
    "settings in a row": ({"settings": ["seed"]}, "settings is missing or not of type dict"),
    "no weights": ({"model": {}}, "does not fit its run: Error(s) in loading state_dict"),
    "weights of no name": ({"model": {5: torch.zeros(1)}}, "model is missing or not of type dict"),
    "other things": ({"model": {"head.weight": "x"}}, "does not fit its run: "),
}


@pytest.mark.parametrize("forged", FORGED)
def test_a_forged_checkpoint_is_refused_in_words(
    forged: str, command: Command, copied: Path
) -> None:
    content, words = FORGED[forged]
    for kind in ("best", "step"):
        path = newest(copied, kind)
        whole = torch.load(path, weights_only=True)
        changed = isinstance(content, dict) and "format" not in content
        torch.save({**whole, **content} if changed else content, path)
        sign(path)
    for tool, *options in (*TOOLS, ("evaluate", "--checkpoint", "latest")):
        ended = command(tool, copied, *options)
        assert (ended.code, len(ended.err.splitlines())) == (1, 1), ended.err
        assert words in ended.err
    ended = command("train", f"run_dir={copied}", "resume=true", "train.steps=31")
    assert ended.code == 1
    assert words in ended.err
    assert "Traceback" not in ended.err + (copied / "train.log").read_text()


@pytest.mark.parametrize("lacking", ["optimizer", "scaler", "progress", "guard"])
def test_a_checkpoint_that_nothing_can_go_on_from(
    lacking: str, command: Command, copied: Path
) -> None:
    path = newest(copied, "step")
    whole = torch.load(path, weights_only=True)
    forged = [(None, f"{lacking} is missing"), ({"x": 1}, "does not fit its run")]
    for value, words in forged[: 1 if lacking == "scaler" else 2]:  # which fp32 has no use for
        torch.save({**whole, lacking: value}, path)
        sign(path)
        ended = command("train", f"run_dir={copied}", "resume=true", "train.steps=31")
        assert (ended.code, words in ended.err) == (1, True), ended.err
        assert "Traceback" not in ended.err + (copied / "train.log").read_text()


@pytest.mark.parametrize("content", [b"", b"x", b"\x80\x02h\x05.", b"\x80\x02a.", b"PK\x05\x06"])
def test_a_checkpoint_that_is_no_file_of_torch(
    content: bytes, command: Command, copied: Path
) -> None:
    path = newest(copied, "best")
    path.write_bytes(content)
    sign(path)
    ended = command("sample", copied)
    assert (ended.code, len(ended.err.splitlines())) == (1, 1), ended.err
    assert "can't be read as tensors and values: " in ended.err


ODD: dict[str, Callable[[dict[str, Any]], object]] = {
    "moments of another shape": lambda whole: [
        state.update(exp_avg=torch.zeros(1)) for state in whole["optimizer"]["state"].values()
    ],
    "moments that are one number": lambda whole: [
        state.update(exp_avg=torch.tensor(0.0)) for state in whole["optimizer"]["state"].values()
    ],
    "a step in words": lambda whole: whole["progress"].update(step="x"),
    "no best steps": lambda whole: whole["progress"].update(saved_best=None),
    "an empty best": lambda whole: whole["progress"].update(best={}),
    "seconds in words": lambda whole: whole["progress"].update(seconds="q"),
    "a guard in words": lambda whole: whole["guard"].update(skipped="many"),
}


@pytest.mark.parametrize("odd", ODD)
def test_state_that_is_not_of_its_run_is_refused(odd: str, command: Command, copied: Path) -> None:
    """Fused kernels would read beyond what a wrong shape holds."""
    path = newest(copied, "step")
    whole = torch.load(path, weights_only=True)
    ODD[odd](whole)
    torch.save(whole, path)
    sign(path)
    ended = command("train", f"run_dir={copied}", "resume=true", "train.steps=31")
    assert (ended.code, "does not fit its run" in ended.err) == (1, True), ended.err
    assert "Traceback" not in ended.err + (copied / "train.log").read_text()


def test_rates_are_those_of_the_configuration(command: Command, copied: Path) -> None:
    """Not those of a checkpoint, which nobody would see in the log."""
    path = newest(copied, "step")
    whole = torch.load(path, weights_only=True)
    for group in whole["optimizer"]["param_groups"]:
        group.update(peak_lr=50.0, lr=50.0, weight_decay=9.0)
    torch.save(whole, path)
    sign(path)
    assert command("train", f"run_dir={copied}", "resume=true", "train.steps=31").code == 0
    saved = torch.load(newest(copied, "step"), weights_only=True)
    assert saved["step"] == 31
    assert all(group["peak_lr"] < 1 for group in saved["optimizer"]["param_groups"])


@pytest.mark.parametrize("more", ["", ', "train": 5', ', "train": {"steps": "x"}'])
def test_a_summary_that_says_too_little_is_not_believed(
    more: str, command: Command, copied: Path
) -> None:
    (copied / "summary.json").write_text(f'{{"status": "finished"{more}}}')
    assert command("train", f"run_dir={copied}", "resume=true", "train.steps=31").code == 0
    train = read_summary(copied).train
    assert train is not None
    assert train.steps == 31


@pytest.mark.parametrize(
    "content",
    ["5", "null", "[]", '[["status", "finished"]]', "{", pytest.param("[" * 200_000, id="deep")],
)
def test_a_summary_that_is_none(content: str, copied: Path) -> None:
    (copied / "summary.json").write_text(content)
    assert status_of(copied) is None


def test_depth_is_no_way_to_a_traceback(copied: Path, tmp_path: Path) -> None:
    (copied / "config.yaml").write_text("a: " + "[" * 5000)
    with pytest.raises(UsageError, match="can't be read"):
        load_settings(copied / "config.yaml")
    path = copied / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:2], "[" * 200_000 + "\n", *lines[3:]]))
    local = Local()
    local.open(copied, settings(tmp_path), len(lines))
    local.close({})
    assert path.read_text().splitlines(keepends=True) == [*lines[:2], *lines[3:]]


# Paths


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", "/etc/passwd"),
        ("model", "../../out"),
        ("tokenizer", ".."),
        ("tokenizer", "a b"),
        ("data", "x" * 300),
    ],
)
@pytest.mark.parametrize("mode", [(), ("-m",)])
def test_a_name_leads_nowhere_else(
    mode: tuple[str, ...], name: str, value: str, command: Command, small_text: Path, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    ended = command(
        "train", *mode, "data=text", f"data.path={small_text}", f'names.{name}="{value}"'
    )
    assert ended.code == 2
    assert f"names.{name}=" in ended.err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("file", ["../above.txt", "/etc/passwd", "a/../../b", "..", "", "a\0b"])
def test_a_download_stays_in_its_folder(file: str) -> None:
    """Or a configuration could write a file of its choice anywhere."""
    node = plain()["data"]
    with pytest.raises(UsageError, match=r"data: file=.* must be the plain name of a file"):
        build_object({**node, "file": file}, corpus.Corpus, "data")


# Names on the command line that are too long for a folder


def test_a_run_folder_that_can_not_be(command: Command, small_text: Path) -> None:
    ended = command("train", "data=text", f"data.path={small_text}", f"run_dir={'x' * 300}")
    assert ended.code == 2
    assert "File name too long" in ended.err
    assert len(ended.err.splitlines()) == 1
