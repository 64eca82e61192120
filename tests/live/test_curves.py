"""metrics.jsonl as curves: read as it grows, thinned to what a picture can show."""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import statistics
from pathlib import Path

import numpy as np
import pytest

from harness.live import curves
from harness.live.answers import MOST_POINTS
from harness.live.curves import Curve, LiveMetrics, Snapshots
from tests.live.live_server import make_run, row, serving


def buckets(values: list[float], most: int = 10**9, **span: float) -> dict[str, list[float]]:
    curve = Curve()
    axes = np.array([[step, 8 * step, 9 * step, 0, step / 64] for step in range(len(values))])
    for start in range(0, len(values), 1000):
        part = slice(start, start + 1000)
        curve.add(axes[part].astype(float), np.array(values[part]))
    return curve.points("step", most, **span)


def test_a_short_curve_is_kept_as_it_is() -> None:
    values = [0.5, 3.25, -1.0]
    assert buckets(values) == {"x": [0, 1, 2], "y": values, "low": values, "high": values}


@pytest.mark.parametrize("count", [4096, 4097, 20_001])
def test_a_long_curve_is_thinned_to_means_and_extremes(count: int) -> None:
    random.seed(count)
    values = [random.gauss(0, 1) for _ in range(count)]
    values[count // 3] = 1000.0  # one spike among them all
    points = buckets(values)
    size = 2 ** math.ceil(math.log2(count / curves.MOST_BUCKETS))
    parts = [values[start : start + size] for start in range(0, count, size)]
    assert len(points["x"]) == len(parts) <= curves.MOST_BUCKETS
    assert points["y"] == pytest.approx([statistics.fmean(part) for part in parts], rel=1e-5)
    assert points["low"] == pytest.approx([min(part) for part in parts], rel=1e-6)
    assert points["high"] == pytest.approx([max(part) for part in parts], rel=1e-6)
    means = [statistics.fmean(range(k, min(k + size, count))) for k in range(0, count, size)]
    assert points["x"] == pytest.approx(means)


@pytest.mark.parametrize("more", [0, 5])
def test_a_file_made_anew_in_the_place_of_another_is_read_anew(tmp_path: Path, more: int) -> None:
    """Even if it has the inode of the one that was deleted, and is as long or longer."""

    def lines(loss: float, count: int) -> str:
        return "".join(json.dumps({"step": n, "a": loss}) + "\n" for n in range(count))

    path = tmp_path / "metrics.jsonl"
    path.write_text(lines(0.25, 9))
    metrics = LiveMetrics(path)
    metrics.read()
    inode = path.stat().st_ino
    path.write_text(lines(0.75, 9 + more))  # in place: as if the inode was given again
    assert path.stat().st_ino == inode
    metrics.read()
    points = metrics.points("a", "step", 100, -math.inf, math.inf)
    assert points is not None
    assert points["y"] == [0.75] * (9 + more)
    with path.open("a") as file:  # and what only grows is read on
        file.write(json.dumps({"step": 99, "a": 0.5}) + "\n")
    metrics.read()
    points = metrics.points("a", "step", 100, -math.inf, math.inf)
    assert points is not None
    assert points["y"] == [*[0.75] * (9 + more), 0.5]


def test_an_answer_is_bounded_and_loses_no_spike() -> None:
    values = [0.0] * 20_000
    values[12_345] = 7.0
    points = buckets(values, most=100)
    assert len(points["x"]) <= 100
    assert max(points["high"]) == 7.0
    assert statistics.fmean(points["y"]) == pytest.approx(7 / 20_000, rel=0.2)


def test_a_part_is_shown_more_closely() -> None:
    values = [float(step) for step in range(3000)]
    whole, part = buckets(values, most=100), buckets(values, most=100, start=1000.0, end=1050.0)
    assert whole["x"][1] - whole["x"][0] == 30
    # One point beyond each end, so that the line leaves the picture.
    assert part["x"] == [float(step) for step in range(999, 1052)]
    assert buckets(values, most=100, start=5000.0)["x"] == []


def test_a_cost_of_zero_has_a_place(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "free", [row(k, loss=k) | {"flops": 0} for k in range(3)])
    metrics = read(folder)
    assert metrics.points("loss", "flops", 10, -math.inf, math.inf) == {
        "x": [0, 0, 0], "y": [0, 1, 2], "low": [0, 1, 2], "high": [0, 1, 2],
    }  # fmt: skip


def test_snapshots_are_spread_over_the_run() -> None:
    kept = Snapshots()
    for step in range(1000):
        kept.add({"step": step})
    steps = [each["step"] for each in kept.all()]
    assert len(steps) <= curves.MOST_SNAPSHOTS + 1
    assert steps[0] == 0
    assert steps[-1] == 999
    gaps = {b - a for a, b in itertools.pairwise(steps[:-1])}
    assert gaps == {64}


def read(folder: Path) -> LiveMetrics:
    metrics = LiveMetrics(folder / "metrics.jsonl")
    while metrics.read() < 1:
        pass
    return metrics


def values(metrics: LiveMetrics, name: str) -> list[float]:
    points = metrics.points(name, "step", 10**6, -math.inf, math.inf)
    return points["y"] if points else []


def test_reading_goes_on_where_it_ended(tmp_path: Path) -> None:
    folder = make_run(tmp_path, [row(0, loss=4.0)])
    metrics, path = LiveMetrics(folder / "metrics.jsonl"), folder / "metrics.jsonl"
    assert metrics.read() == 1
    line = json.dumps(row(1, loss=3.0))
    with path.open("a") as file:
        file.write(line[:20])  # a line that is still being written
        file.flush()
        metrics.read()
        assert values(metrics, "loss") == [4.0]
        file.write(line[20:] + "\n" + json.dumps(row(2, loss=2.0)) + "\n")
    assert metrics.read() == 1
    assert values(metrics, "loss") == [4.0, 3.0, 2.0]


def test_only_what_is_new_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(tmp_path, [row(k, loss=1.0) for k in range(50)])
    metrics, seen = LiveMetrics(folder / "metrics.jsonl"), []
    parse = curves.parse_row
    monkeypatch.setattr(curves, "parse_row", lambda line: seen.append(line) or parse(line))
    metrics.read()
    assert len(seen) == 50
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row(50, loss=1.0)) + "\n")
    metrics.read()
    assert len(seen) == 51


def test_a_resumed_runs_new_file_is_read_from_its_start(tmp_path: Path) -> None:
    folder = make_run(tmp_path, [row(k, loss=float(k)) for k in range(9)])
    metrics = read(folder)
    fresh = make_run(tmp_path / "fresh", [row(k, loss=-1.0) for k in range(4)])
    os.replace(fresh / "metrics.jsonl", folder / "metrics.jsonl")
    metrics.read()
    assert values(metrics, "loss") == [-1.0] * 4
    (folder / "metrics.jsonl").unlink()
    assert metrics.read() == 1
    assert metrics.names() == []


@pytest.mark.parametrize(
    "line",
    [
        "", "nonsense", "[1]", "null", '{"loss": 1}', '{"step": "3", "loss": 1}', "[" * 10_000,
        '{"step": NaN, "loss": 1}', '{"step": 1, "loss": null, "other": "text", "flag": true}',
        '{"step": 1, "loss": NaN}', '{"step": 1, "loss": 1e999}', '{"step": 1, "loss": "<b>"}',
        '{"step": 1, "h": {"counts": [1], "edges": [0]}, "l": [], "m": [null], "n": {"x": 1}}',
        '{"step": 1, "h": {"counts": [1, "2"], "edges": [0, 1, 2]}, "loss": [1, [2]]}',
    ],
)  # fmt: skip
def test_what_no_run_writes_is_passed_over(line: str, tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    good = json.dumps(row(2, loss=0.5))
    (folder / "metrics.jsonl").write_text(f"{line}\n{good}\n{line}\n")
    metrics = read(folder)
    assert values(metrics, "loss") == [0.5]
    assert metrics.snapshot_names() == []


def test_numbers_of_any_size_are_taken(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    (folder / "metrics.jsonl").write_text(f'{{"step": 1, "loss": {"9" * 4000}, "lr": 7}}\n')
    assert values(read(folder), "lr") == [7]


def test_histograms_and_lists_are_told_from_numbers(tmp_path: Path) -> None:
    histogram = {"counts": [1, 2], "edges": [-1.0, 0.0, 1.0]}
    folder = make_run(tmp_path, [row(5, **{"act/a": histogram, "val/by_position": [1, 2.5]})])
    metrics = read(folder)
    assert metrics.snapshot_names() == ["act/a", "val/by_position"]
    assert metrics.snapshots("act/a") == [{"step": 5, **histogram}]
    assert metrics.snapshots("val/by_position") == [{"step": 5, "values": [1, 2.5]}]
    assert metrics.names() == []


def test_a_run_of_any_content_takes_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many names of long curves, and of large histograms."""
    monkeypatch.setattr(curves, "ALL_BUCKETS", 1 << 13)
    monkeypatch.setattr(curves, "ALL_NUMBERS", 30_000)
    histogram = {"counts": [1] * 100, "edges": [*range(101)]}
    losses = {f"loss/{k}": 1.0 for k in range(16)}
    histograms = {f"h/{k}": histogram for k in range(16)}
    metrics = read(make_run(tmp_path, [
        row(step, **losses) | (histograms if step % 50 == 0 else {}) for step in range(2000)
    ]))  # fmt: skip
    buckets = [len(curve._low_B) for curve in metrics._curves.values()]
    assert len(buckets) == 16 + len(curves.AXES)
    assert max(buckets) <= 512
    assert all(values(metrics, f"loss/{k}") for k in range(16))
    assert metrics.snapshot_names() == [f"h/{k}" for k in range(5)]
    kept = [len(metrics.snapshots(name)) for name in metrics.snapshot_names()]
    assert sum(kept) * 201 <= 30_000
    assert metrics.memory < 2e6


@pytest.mark.long
def test_a_run_of_300_000_steps_is_read_bit_by_bit_and_answered_shortly(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "long")
    line = (
        '{{"step": {0}, "tokens": {0}, "bytes": {0}, "flops": {0}, "seconds": {0}, '
        '"train/loss": 2.5, "lr": 0.001, "grad_norm": 1.25}}\n'
    )
    with (folder / "metrics.jsonl").open("w") as file:
        file.writelines(line.format(step) for step in range(300_000))
    with serving(tmp_path) as client:
        run = client.runs()["long"]["id"]
        query = {"run": run, "name": ["train/loss", "lr", "grad_norm"], "axis": "step"}
        shares, sizes = [0.0], []
        while shares[-1] < 1:
            answer = client.get("curves", **query)
            shares.append(answer["runs"][run]["read"])
            sizes.append(len(json.dumps(answer)))
        assert len(shares) > 3  # no single answer waited for the whole file
        assert shares == sorted(shares)
        assert max(sizes) < 100_000
        assert answer["names"] == ["train/loss", "lr", "grad_norm"]
        loss = answer["runs"][run]["curves"]["train/loss"]
        assert len(loss["x"]) <= MOST_POINTS
        assert loss["x"][0] < 1000
        assert loss["x"][-1] > 299_000
        runs = client.server.answers.runs
        metrics = runs.metrics(runs.look()[0])
        kept = sum(each._sums_BC.nbytes for each in metrics._curves.values())
        assert kept < 8 * 7 * 8 * curves.MOST_BUCKETS
