"""A model that counts, in the place of a trained one: the same folder, scores, resume and tools."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from harness.common.errors import UsageError
from harness.common.interrupt import TERMINATED
from harness.config.settings import Settings
from harness.diagnostics import bench, drill, groups, lr_range, overfit, schedule
from harness.runs import checkpoint
from harness.runs.checkpoint import StepCheckpoint
from harness.training.checks import check_settings
from harness.training.distributed import ProcessGroup
from tests.conftest import Ended
from tests.small_runs import TEXT, TRAIN_SHARE, rows, settings, summary, trace, train
from zoo import ngram
from zoo.ngram import KneserNey, NGram

COUNTS = ("model=ngram", "model.order=4")
Command = Callable[..., Ended]


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For reading only."""
    folder = tmp_path_factory.mktemp("counted") / "ngram"
    assert train(folder, *COUNTS) == 0
    return folder


def test_its_one_step_is_a_pass_over_train(counted: Path) -> None:
    """Whatever the budget of 8 steps: the last row is of a model that has read all of train."""
    size = len(TEXT.encode())
    found = summary(counted)
    first, last = rows(counted)
    assert first["val/bits_per_byte"] > 4 > 1 > last["val/bits_per_byte"]
    assert found["train"]["steps"] == last["step"] == 1
    assert found["train"]["bytes"] == pytest.approx(TRAIN_SHARE * size, abs=4)
    assert found["train"]["flops"] == found["flops_per_token"] == 0
    assert (found["best"]["step"], found["receptive_field"]) == (1, 3)
    assert 0 < found["compressors"]["xz -9e"]["bits_per_byte"] < 3


def test_its_counts_are_its_state(counted: Path) -> None:
    """No parameters; the checkpoint holds every number that the summary counts."""
    found = summary(counted)["parameters"]
    saved = checkpoint.load(counted / "run" / "checkpoints", StepCheckpoint)
    assert saved is not None
    assert found["total"] == found["trainable"] == 0
    assert found["state"] == sum(tensor.numel() for tensor in saved.model.values()) > 1000


def test_trained_models_have_no_such_state(finished_run: Path) -> None:
    found = json.loads((finished_run / "summary.json").read_text())
    assert "state" not in found["parameters"]


def test_its_checkpoint_gives_its_scores_and_text(counted: Path, command: Command) -> None:
    """Sampling with beams carries the cache along."""
    ended = command("evaluate", counted / "run", "--json", "--split", "test")
    assert json.loads(ended.out)["bits_per_byte"] == summary(counted)["test"]["bits_per_byte"]
    for options in (["--seed", 1], ["--beams", 3]):
        ended = command("sample", counted / "run", "--prompt", "12 gre", "--tokens", 60, *options)
        assert (ended.code, "bottles" in ended.out) == (0, True)


def test_resumed_once_finished_it_has_nothing_to_do(
    counted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (counted / "run" / "summary.json").read_bytes()
    assert train(counted, *COUNTS, "resume=true") == 0
    assert "finished already" in capsys.readouterr().err
    assert (counted / "run" / "summary.json").read_bytes() == before


@pytest.mark.parametrize("when", ["before", "after"])
def test_cut_off_before_or_after_its_pass_it_ends_as_if_left_alone(
    when: str, counted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts again."""
    fit = NGram.fit

    def cut_off(model: NGram, ids_N: Tensor) -> None:
        if when == "before":
            raise KeyboardInterrupt
        fit(model, ids_N)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(NGram, "fit", cut_off)
        code = train(tmp_path, *COUNTS)
    assert code == (TERMINATED if when == "after" else 130)
    assert summary(tmp_path)["status"] == "stopped"
    assert train(tmp_path, *COUNTS, "resume=true") == 0
    assert trace(tmp_path) == trace(counted)
    found, expected = summary(tmp_path), summary(counted)
    for key in ("status", "val", "test", "best", "parameters"):
        assert found[key] == expected[key], key


@pytest.mark.parametrize("order", [1, 3])
def test_cut_off_in_its_pass_it_ends_as_if_left_alone(
    order: int, counted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal is seen between the parts of an order. Half of the counts are none."""
    count, calls = ngram.count, [0]

    def cut_off(keys_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        calls[0] += 1
        if calls[0] == order:
            os.kill(os.getpid(), signal.SIGTERM)
        return count(keys_N)

    with monkeypatch.context() as patch:
        patch.setattr(ngram, "count", cut_off)
        assert train(tmp_path, *COUNTS) == TERMINATED
    assert calls == [order]
    assert summary(tmp_path)["status"] == "stopped"
    saved = checkpoint.load(tmp_path / "run" / "checkpoints", StepCheckpoint)
    assert saved is not None
    assert (saved.step, saved.model["head.tables.0.keys"].numel()) == (0, 0)
    assert train(tmp_path, *COUNTS, "resume=true") == 0
    assert trace(tmp_path) == trace(counted)
    found, expected = summary(tmp_path), summary(counted)
    for key in ("status", "val", "test", "best", "parameters"):
        assert found[key] == expected[key], key


def test_a_vocabulary_of_thousands_takes_no_absurd_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scored as many positions at a time as CHUNK_LOGITS allows, whatever the order."""
    largest, head = 0, KneserNey.forward

    def forward(self: Any, contexts: Tensor) -> Tensor:
        nonlocal largest
        logits = head(self, contexts)
        largest = max(largest, logits.numel())
        return logits

    monkeypatch.setattr(KneserNey, "forward", forward)
    monkeypatch.setattr("harness.evaluation.nats.CHUNK_LOGITS", 2**16)
    chosen = ("tokenizer=bpe", "tokenizer.vocab_size=300", "eval.sample_tokens=0")
    assert train(tmp_path, *COUNTS, *chosen) == 0
    assert 2**15 < largest <= 2**16
    assert summary(tmp_path)["test"]["bits_per_byte"] < 1


@pytest.mark.parametrize(
    "setting",
    [
        "train.ema=0.9", "train.positions=last", "train.label_smoothing=0.1", "train.max_norm=1",
        "train.patience=3", "train.on_non_finite=skip", "train.batch_norm=batch", "init=xavier",
    ],
)  # fmt: skip
def test_what_means_nothing_is_refused(setting: str, tmp_path: Path) -> None:
    line = f"^{re.escape(setting)}(.0)? means nothing to model=ngram: it counts, in one pass$"
    with pytest.raises(UsageError, match=line):
        check_settings(settings(tmp_path / "a", *COUNTS, setting))


TOOLS: dict[str, Callable[[Settings], object]] = {
    "overfit": overfit.overfit,
    "lr_range": lr_range.lr_range,
    "schedule": schedule.draw_schedule,
    "groups": groups.print_groups,
    "bench": bench.bench,
    "drill": lambda settings: drill.drill(["model=ngram"], kills=1, seed=0),
}


@pytest.mark.parametrize("tool", TOOLS)
def test_tools_about_steps_refuse_it(tool: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="model=ngram counts, in one pass over train"):
        TOOLS[tool](settings(tmp_path / "a", *COUNTS, "train.steps=30"))


def test_several_processes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="model=ngram counts in one process"):
        check_settings(settings(tmp_path / "a", *COUNTS), ProcessGroup(world_size=2))
