"""Whole by its digest, but not what the run wrote: refused in words."""

from __future__ import annotations

import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.common.errors import UsageError
from harness.config.saved import load_settings
from harness.loggers.local import Local
from harness.runs import checkpoint
from harness.runs.summary import read_summary, status_of
from tests.runs.tampering import TOOLS, Command, sign
from tests.small_runs import settings


def newest(run: Path, kind: str) -> Path:
    return max((run / "checkpoints").glob(f"{kind}-*.pt"))


FORGED: dict[str, tuple[object, str]] = {
    "a tensor": (torch.zeros(3), "is not a checkpoint: it holds a Tensor"),
    "a list": ([{"format": 3}], "is not a checkpoint: it holds a list"),
    "nearly nothing": ({"format": 3, "step": 5}, "model is missing or not of type dict"),
    "no tokenizer": ({"tokenizer": None}, "tokenizer is missing or not of type str"),
    "a step in words": ({"step": "five"}, "step is missing or not of type int"),
    "settings in a row": ({"settings": ["seed"]}, "settings is missing or not of type dict"),
    "no weights": ({"model": {}}, "does not fit its run: model.token_embedding.weight is missing"),
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


def central_entry(name: bytes, size: int, offset: int) -> bytes:
    """A stored file in a ZIP's directory (APPNOTE 4.3.12)."""
    fields = (20, 20, 0, 0, 0, 0, 0, size, size, len(name), 0, 0, 0, 0, 0, offset)
    return b"PK\1\2" + struct.pack("<6H3L5H2L", *fields) + name


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([(1000, 0), (1000, 0)], "overlap"),
        ([(1000, 0), (900, 100)], "overlap"),
        ([(1000, 0), (1000, 1500)], "overlap"),
    ],
)
def test_no_byte_of_a_checkpoint_counts_twice(
    entries: list[tuple[int, int]], words: str, tmp_path: Path
) -> None:
    """200 entries that point at one record of 4 MiB would take 800 MiB."""
    body = bytes(1100)
    directory = b"".join(central_entry(b"%d" % n, *entry) for n, entry in enumerate(entries))
    counts = (0, 0, len(entries), len(entries), len(directory), len(body), 0)
    end = b"PK\5\6" + struct.pack("<4H2LH", *counts)
    with pytest.raises(ValueError, match=words):
        checkpoint._require_bounded(BytesIO(body + directory + end))


def test_a_checkpoint_larger_than_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    file = BytesIO()
    torch.save({"a": torch.zeros(100), "b": [torch.ones(3)]}, file)
    checkpoint._require_bounded(file)
    monkeypatch.setattr(checkpoint, "total_memory", lambda device: 300)
    with pytest.raises(ValueError, match="the memory here is 300"):
        checkpoint._require_bounded(file)
