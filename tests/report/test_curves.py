"""What is drawn: means over seeds, thinned without moving the ends, and Pareto fronts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.report.drawing.curves import (
    CURVE_AXES,
    MAX_POINTS,
    TRAINING_BINS,
    drawable,
    pareto_front,
    training_series,
    validation_series,
)
from harness.report.records.groups import Group
from harness.report.records.runs import RunRecord
from harness.runs.metrics import Metrics

POINTS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12)


@given(POINTS)
def test_who_is_on_the_front_is_beaten_by_nobody(points: list[tuple[int, int]]) -> None:
    front = pareto_front(points)
    for index, (cost, score) in enumerate(points):
        cheaper_or_equal = [other for other in points if other[0] <= cost]
        beaten = any(
            other[1] < score or (other[1] == score and other[0] < cost)
            for other in cheaper_or_equal
        )
        assert (index in front) is not beaten
    ordered = [points[index] for index in front]
    assert ordered == sorted(ordered)
    assert [score for _, score in ordered] == sorted((score for _, score in ordered), reverse=True)


def test_a_front_by_hand() -> None:
    points = [(3, 1.0), (1, 3.0), (2, 3.5), (2, 2.0), (4, 1.0)]
    assert pareto_front(points) == [1, 3, 0]


def group_of(*values: list[tuple[float, float]]) -> Group:
    """One seed for each list of (step, loss), which are its validation scores, too."""
    runs = tuple(
        RunRecord(
            Path(str(seed)), "finished", model="gpt", seed=seed,
            metrics=Metrics(
                [{"step": step, "val/bits_per_byte": loss} for step, loss in own],
                np.array(own, dtype=float).reshape(-1, 2),
            ),
        )
        for seed, own in enumerate(values)
    )  # fmt: skip
    return Group("gpt", "char", "text", "", "gpt", {}, runs, runs)


def test_a_band_spans_the_seeds_at_the_steps_that_all_have() -> None:
    group = group_of([(0, 5.0), (10, 3.0), (20, 2.0)], [(0, 6.0), (10, 4.0), (15, 9.0)])
    (line,) = validation_series(drawable([group]), CURVE_AXES[0])
    assert (line.x, line.y) == ((0, 10), (5.5, 3.5))
    assert (line.low, line.high) == ((5.0, 3.0), (6.0, 4.0))
    (line,) = training_series(drawable([group]))
    assert (line.x, line.y) == ((0, 10), (5.5, 3.5))
    assert (line.low, line.high) == ((5.0, 3.0), (6.0, 4.0))


def test_a_run_without_rows_has_no_curve() -> None:
    """As one whose metrics.jsonl was emptied after it had finished."""
    for values in ([[]], [[(0, 5.0), (10, 3.0)], []]):
        assert validation_series(drawable([group_of(*values)]), CURVE_AXES[0]) == []


def test_long_curves_are_thinned_and_keep_their_ends() -> None:
    rows = [(step, 10_000.0 - step) for step in range(10_001)]
    group = group_of(rows, rows)
    (line,) = validation_series(drawable([group]), CURVE_AXES[0])
    assert len(line.x) <= MAX_POINTS + 1
    assert (line.x[0], line.x[-1], line.y[-1]) == (0, 10_000, 0)
    (line,) = training_series(drawable([group]))
    assert len(line.x) <= TRAINING_BINS
    # Bins of a straight line lie on it.
    assert np.add(line.x, line.y) == pytest.approx(10_000)


def test_nothing_in_common_is_nothing_to_draw() -> None:
    group = group_of([(0, 1.0)], [(1, 1.0)])
    assert validation_series(drawable([group]), CURVE_AXES[0]) == []
    assert training_series(drawable([group])) == []
    assert training_series(drawable([group_of([])])) == []


def test_seeds_that_end_at_steps_of_their_own_have_one_end() -> None:
    """A budget in bytes is reached a step earlier or later from seed to seed."""
    group = group_of([(0, 6.0), (100, 3.0), (668, 2.0)], [(0, 6.0), (100, 3.2), (670, 2.2)])
    (line,) = validation_series(drawable([group]), CURVE_AXES[0])
    assert line.x == (0, 100, 669)
    assert line.y == (6.0, pytest.approx(3.1), pytest.approx(2.1))
    assert (line.low[-1], line.high[-1]) == (2.0, 2.2)
