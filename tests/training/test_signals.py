"""SIGTERM and Ctrl-C stop a training with its work saved."""

from __future__ import annotations

import functools
import os
import signal
from pathlib import Path

import pytest

from harness.common.interrupt import INTERRUPTED, TERMINATED
from harness.diagnostics import drill
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
