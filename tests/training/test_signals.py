"""SIGTERM and Ctrl-C stop a training with its work saved."""

from __future__ import annotations

import functools
import lzma
import os
import signal
from pathlib import Path

import pytest

from harness.common.interrupt import INTERRUPTED, TERMINATED, Interrupt, Stopped, exit_code
from harness.diagnostics import drill
from harness.evaluation import batch_norm, score
from harness.referee import decoder
from harness.sampling import decode
from harness.training import loop, trainer
from tests.small_runs import GPT_SMALL, summary, trace, train
from tests.training.processes import BATCH_NORM, held, overrides, steps_saved
from tests.waiting import GUARD, wait_until


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, TERMINATED), (signal.SIGINT, INTERRUPTED)]
)
def test_a_signal_from_outside_stops_it_with_its_work_saved(
    tmp_path: Path, number: int, code: int
) -> None:
    chosen = overrides(tmp_path, "train.steps=30", "eval.every=10", "checkpoint.every=100")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    drill.finish(drill.start(drill.train_or_resume, chosen, whole), whole)
    live = functools.partial(held, 20, tmp_path / "signalled", drill.train_or_resume)
    life = drill.start(live, chosen, cut)
    wait_until(lambda: drill.last_step(cut) >= 7, life.is_alive)
    os.kill(life.pid or 0, number)
    (tmp_path / "signalled").touch()
    life.join(GUARD)
    assert life.exitcode == code
    assert summary(cut)["status"] == "stopped"
    assert steps_saved(cut) == [drill.last_step(cut) + 1]
    assert "work saved; go on" in (cut / "output.txt").read_text()
    drill.finish(drill.start(drill.train_or_resume, chosen, cut), cut)
    assert drill.differences(whole, cut) == []


def test_a_signal_does_not_wait_for_the_rest_of_a_long_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two micro-batches; what the first one left in batch norm's averages is undone."""
    chosen = (*BATCH_NORM, "train.accumulate=4")
    train(tmp_path / "whole", *chosen)
    add, calls = trainer.add_gradients, [0]

    def adding(*arguments, **named):  # noqa: ANN002, ANN003, ANN202
        calls[0] += 1
        if calls[0] == 4 * 5 + 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return add(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "add_gradients", adding)
        assert train(tmp_path / "cut", *chosen) == TERMINATED
    assert calls == [4 * 5 + 2]
    assert steps_saved(tmp_path / "cut")[0] == 5
    assert train(tmp_path / "cut", *chosen, "resume=true") == 0
    assert trace(tmp_path / "cut") == trace(tmp_path / "whole")


STAGES = {
    "evaluating": (score, "score_nats", signal.SIGHUP, ()),
    "sampling": (decode.Window, "extend", signal.SIGUSR1, ("eval.sample_tokens=9",)),
    "recomputing statistics": (
        batch_norm, "_biased", signal.SIGTERM, (*BATCH_NORM, "train.batch_norm=precise")
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "stage",
    ["evaluating", *(pytest.param(s, marks=pytest.mark.long) for s in STAGES if s[0] != "e")],
)
def test_a_signal_stops_every_long_stage_after_its_next_little_part(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the second evaluation; and the training goes on as if nothing had been."""
    where, name, number, more = STAGES[stage]
    chosen = (*more, "eval.batch_size=4")
    part, calls, told_at = getattr(where, name), [0], [0]

    def doing(*arguments, **named):  # noqa: ANN002, ANN003, ANN202
        calls[0] += 1
        if calls[0] == told_at[0]:
            os.kill(os.getpid(), number)
        return part(*arguments, **named)

    # The referee tries a model once in a process: its calls would count in the first alone.
    train(tmp_path / "tried", *chosen)
    with monkeypatch.context() as patch:
        patch.setattr(where, name, doing)
        train(tmp_path / "whole", *chosen)
        a_third, calls[0] = calls[0] // 3, 0  # of three evaluations, and of the test split's
        told_at[0] = a_third + 2
        assert train(tmp_path / "cut", *chosen) == exit_code(number)
    assert a_third > 3
    # One more at most, but for the layers of one model: their parts come together.
    assert calls[0] <= told_at[0] + 3
    assert summary(tmp_path / "cut")["status"] == "stopped"
    assert train(tmp_path / "cut", *chosen, "resume=true") == 0
    assert trace(tmp_path / "cut") == trace(tmp_path / "whole")


# After the last step, each with how often it looks: between windows, tokens, parts of a text.
ENDS = {
    "scoring the test split": (score, "score_nats", GPT_SMALL),
    "the certificate": (decoder.LocalDecoder, "feed", GPT_SMALL),
    "the compressors of the floor": (lzma, "LZMACompressor", ("model=ngram", "model.order=2")),
}


@pytest.mark.parametrize("stage", ENDS)
def test_a_signal_stops_every_stage_after_the_last_step(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a resume makes the rest."""
    where, name, chosen = ENDS[stage]
    part, calls, last = getattr(where, name), [0], loop.Checkpoints.load_best

    def scored(*arguments):  # noqa: ANN002, ANN202
        last(*arguments)
        monkeypatch.setattr(where, name, doing)

    def doing(*arguments, **named):  # noqa: ANN002, ANN003, ANN202
        calls[0] += 1
        if calls[0] == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return part(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Checkpoints, "load_best", scored)
        assert train(tmp_path, *chosen, "eval.batch_size=1") == TERMINATED
    monkeypatch.setattr(where, name, part)
    assert calls == [1]
    assert summary(tmp_path)["status"] == "stopped"
    assert train(tmp_path, *chosen, "eval.batch_size=1", "resume=true") == 0
    found = summary(tmp_path)
    assert (found["status"], found["causal"], "missing" in found) == ("finished", True, False)
    assert found["test"] is not None


def test_a_signal_that_is_ignored_from_the_start_stays_ignored() -> None:
    """As SIGHUP under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        interrupt = Interrupt()
        with interrupt.handling_signals():
            os.kill(os.getpid(), signal.SIGHUP)
            interrupt.check()
            os.kill(os.getpid(), signal.SIGUSR1)
            with pytest.raises(Stopped, match="stopped by SIGUSR1"):
                interrupt.check()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_exit_codes_are_those_that_shells_say() -> None:
    named = (signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGTERM)
    assert list(map(exit_code, named)) == [129, 130, 138, 143]


def test_a_second_ctrl_c_ends_it_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    draw = loop.draw_batch

    def drawing(ids, seed, step, *rest):  # noqa: ANN001, ANN002, ANN202
        if step == 5:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return draw(ids, seed, step, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "draw_batch", drawing)
        assert train(tmp_path / "cut", *GPT_SMALL) == INTERRUPTED
    assert summary(tmp_path / "cut")["status"] == "stopped"
    assert steps_saved(tmp_path / "cut") == [3]
    assert "interrupted at once" in caplog.text
    train(tmp_path / "whole", *GPT_SMALL)
    assert train(tmp_path / "cut", *GPT_SMALL, "resume=true") == 0
    assert trace(tmp_path / "cut") == trace(tmp_path / "whole")
