"""Rows that are repeated, missing, out of order or damaged: repaired or refused, and said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.live.curves import LiveMetrics
from harness.report.records.runs import find_runs
from harness.runs import metrics
from tests.report.comparing import write_run

WHOLE = [0, 1, 2, 3, 4]
CASES = {
    "repeated": ([0, 1, 1, 2, 3, 4], "1 rows are repeated or out of order, and left out"),
    "unordered": ([0, 1, 3, 2, 4], "1 rows are repeated or out of order, and left out"),
    "missing": ([0, 1, 4], "2 of 5 steps have no row"),
    "late": ([2, 3, 4], "2 of 5 steps have no row"),
    "negative": ([-1, *WHOLE], "1 rows are repeated or out of order, and left out"),
}


def line(step: int, loss: str) -> str:
    return f'{{"step": {step}, "train/loss": {loss}, "val/bits_per_byte": {loss}}}\n'


def written(folder: Path, steps: list[int]) -> Path:
    """A finished run; each row's loss is its place in the file."""
    write_run(folder, "gpt", steps=4)
    path = folder / metrics.FILE
    path.write_text("".join(line(step, str(place)) for place, step in enumerate(steps)))
    return path


@pytest.mark.parametrize("case", CASES)
def test_the_report_and_the_live_page_say_it(
    case: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    steps, said = CASES[case]
    path = written(tmp_path / "run", steps)
    (run,) = find_runs([tmp_path])
    assert run.status == "finished"
    shown = run.metrics.losses[:, 0].tolist()
    assert shown == sorted(set(shown))
    assert [row["step"] for row in run.metrics.evaluations] == shown
    assert f"{tmp_path / 'run'}: metrics.jsonl: {said}" in caplog.text.replace("2 of 5", said[:6])
    live = LiveMetrics(path)
    assert live.complaint() is None
    live.read()
    assert said in str(live.complaint())
    points = live.points("train/loss", "step", 100, -1, 100)
    assert points is not None
    assert points["x"] == shown


def test_a_whole_file_is_not_remarked_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    written(tmp_path / "run", WHOLE)
    (run,) = find_runs([tmp_path])
    assert run.metrics.complaint is None
    assert caplog.text == ""


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_no_value_is_nan(value: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The report refuses the run, the live page and a resume leave the line out; all say so. A
    number beyond the largest float is no score of any row."""
    path = written(tmp_path / "run", WHOLE)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:2], line(2, value), *lines[3:]]))
    (run,) = find_runs([tmp_path])
    live = LiveMetrics(path)
    live.read()
    metrics.keep_before(path, 4)
    if value == "1e999":
        assert run.metrics.losses[:, 0].tolist() == [0, 1, 3, 4]
        return
    assert run.status == "damaged"
    assert "metrics.jsonl line 3 is not a row of strict JSON" in str(run.error)
    assert "1 damaged lines are left out" in str(live.complaint())
    assert f"{path}: 1 damaged lines are left out" in caplog.text
    assert "the rows of 1 of the first 4 steps are missing or damaged" in caplog.text


def test_a_resume_puts_them_in_order(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = written(tmp_path / "run", [1, 0, 1, 3, 2, 9, 4])
    metrics.keep_before(path, 4)
    found = [json.loads(each) for each in path.read_text().splitlines()]
    assert [(row["step"], row["train/loss"]) for row in found] == [(0, 1), (1, 0), (2, 4), (3, 3)]
    assert f"{path}: 1 repeated rows are left out; rows are put in order" in caplog.text
    caplog.clear()
    metrics.keep_before(path, 3)
    assert caplog.text == ""
    path.unlink()
    metrics.keep_before(path, 2)
    assert "the rows of 2 of the first 2 steps are missing" in caplog.text
