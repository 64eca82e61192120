"""Schedules equal their formulas, in every step and after a resume."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from harness.common.paths import CONF
from harness.common.terminal_plot import draw
from harness.training.schedules import (
    Constant,
    Cosine,
    InverseSqrt,
    Linear,
    Schedule,
    StableDecay,
    Step,
)
from tests.small_runs import GPT_SMALL, rows, settings, trace, train

SCHEDULES = sorted(path.stem for path in (CONF / "schedule").glob("*.yaml"))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Constant(10), [1.0] * 10),
        (Constant(10, warmup=4, warmup_start=0.0), [0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1]),
        (Constant(10, warmup=0.4, warmup_start=0.2), [0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1, 1, 1]),
        (Linear(10, floor=0.5), [1 - 0.05 * s for s in range(10)]),
        (Cosine(10, floor=0.1), [0.1 + 0.45 * (1 + math.cos(math.pi * s / 10)) for s in range(10)]),
        (Cosine(5, end=10), [0.5 * (1 + math.cos(math.pi * s / 10)) for s in range(10)]),
        (Cosine(20, end=0.5), [0.5 * (1 + math.cos(math.pi * s / 10)) for s in range(10)]),
        (Step(10, at=[3, 0.7]), [1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01]),
        (StableDecay(10, decay=4), [1, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]),
        (StableDecay(10, decay=0.5, floor=0.5), [1] * 6 + [0.9, 0.8, 0.7, 0.6]),
        (InverseSqrt(10, warmup=1), [0.01] + [1 / math.sqrt(s) for s in range(1, 10)]),
    ],
)
def test_schedule_equals_its_formula(schedule, expected: list[float]) -> None:  # noqa: ANN001
    assert [schedule(step) for step in range(10)] == pytest.approx(expected, abs=1e-12)


def test_the_schedule_of_the_study_notes() -> None:
    """1e-3·(0.01 + 0.99·187/1500): what their warm-up reached, and took for its peak."""
    assert 1e-3 * Cosine(3000, warmup=1500)(187) == pytest.approx(1.334e-4, rel=1e-3)


@pytest.mark.parametrize(
    ("cls", "wrong"),
    [
        (Cosine, {"warmup": 11}),
        (Cosine, {"warmup": -1}),
        (Cosine, {"floor": 1.5}),
        (Cosine, {"warmup": 4, "end": 4}),
        (Cosine, {"warmup": 4, "end": 0.4}),
        (Cosine, {"end": 0}),
        (Cosine, {"end": -1}),
        (Constant, {"warmup_start": 2}),
        (StableDecay, {"warmup": 5, "decay": 6}),
        (Step, {"at": [11]}),
        (Step, {"at": [1], "factor": 0}),
        (InverseSqrt, {"warmup": 0}),
    ],
)
def test_schedules_refuse_what_they_cannot_do(cls, wrong: dict) -> None:  # noqa: ANN001
    with pytest.raises(ValueError, match=r"must|exceed"):
        cls(10, **wrong)


@pytest.mark.parametrize(
    ("name", "budget"), [*((name, "steps=8") for name in SCHEDULES), ("cosine", "tokens=768")]
)
def test_every_rate_is_the_schedule_s_bit_for_bit_and_after_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, budget: str
) -> None:
    """What is logged, what the optimizer used, and the formula; three micro-batches to a step."""
    used: list[float] = []
    step = torch.optim.AdamW.step

    def watched(self, *rest):  # noqa: ANN001, ANN002, ANN202
        used.append(*{group["lr"] for group in self.param_groups})
        return step(self, *rest)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    chosen = (
        *GPT_SMALL, f"schedule={name}", "checkpoint.every=4", "schedule.warmup=0.25",
        "optimizer.lr=0.003", "train.accumulate=3", "train.steps=null", f"train.{budget}",
        "eval.every=100",
    )  # fmt: skip
    train(tmp_path / "a", *chosen)
    plan = settings(tmp_path / "a", *chosen)
    schedule = plan.build("schedule", Schedule, total=plan.train.budget[1])
    spent = range(8) if budget == "steps=8" else range(0, 768, 96)
    expected = [0.003 * schedule(amount) for amount in spent]
    assert expected[0] < expected[1] < max(expected)
    # Before the loop, the zoo tries optimizers out on parameters of its own.
    assert used[-8:] == [row["lr"] for row in rows(tmp_path / "a") if "lr" in row] == expected
    (tmp_path / "a/run/checkpoints/step-00000008.pt").unlink()
    before = trace(tmp_path / "a")
    path = tmp_path / "a/run/summary.json"
    path.write_text(path.read_text().replace("finished", "running"))
    train(tmp_path / "a", *chosen, "resume=true")
    assert trace(tmp_path / "a") == before
    assert used[-4:] == expected[4:]


def test_a_schedule_can_be_looked_at() -> None:
    schedule = Linear(100, warmup=0.1, warmup_start=0.0)
    drawing = draw([0.02 * schedule(spent) for spent in range(0, 101, 5)], "0", "100 steps")
    assert "0.02 ┤" in drawing
    columns = [line[11:] for line in drawing.splitlines()[:10]]
    heights = [sum(line[c] == "█" for line in columns) for c in range(21)]
    assert heights[:3] == [0, 5, 10]
    assert heights[2:] == sorted(heights[2:], reverse=True)
    assert heights[-1] == 0
