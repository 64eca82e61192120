"""A run whose configuration was edited gives no numbers and copies no file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml

from harness.common.errors import UsageError
from harness.config.identity import RESUMABLE, differences, without_resumable
from harness.config.saved import load_settings
from harness.runs.digest import digest
from tests.runs.tampering import TOOLS, Command
from tests.small_runs import settings


def edit(run: Path, key: str, value: object) -> None:
    saved = yaml.safe_load((run / "config.yaml").read_text())
    *path, last = key.split(".")
    node = saved
    for name in path:
        node = node[name]
    assert node[last] != value
    node[last] = value
    (run / "config.yaml").write_text(yaml.safe_dump(saved))


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
    assert saved.cache is None  # the user's
    assert (tmp_path / "own" / "language-model-zoo").is_dir()
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


@pytest.mark.parametrize("changed", [torch.zeros(2), [torch.zeros(2), 1], {"a": torch.zeros(2)}])
def test_what_no_setting_is_differs(changed: object) -> None:
    """A checkpoint that was changed may hold tensors in the place of its settings' values."""
    (line,) = differences({"n_layer": changed}, {"n_layer": [2, 1]}, "model")
    assert line.startswith("model.n_layer: ")
