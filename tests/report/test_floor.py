"""The floor in every table and figure: counted n-grams, compressors, and who crosses it."""

from __future__ import annotations

import csv
import html
import io
from pathlib import Path
from typing import Any

import pytest

from harness.report.drawing.curves import CURVE_AXES, SCATTER_COSTS, validation_series
from harness.report.drawing.plots import scatter_points
from harness.report.records.runs import find_runs
from harness.report.statistics.floor import find_floor
from harness.report.statistics.ranking import Comparison, compare_runs
from harness.report.text import export, verdict
from tests.report.comparing import page, printed, write_run

COUNTED: dict[str, Any] = {
    "steps": 1,
    "flops_per_token": 0.0,
    "parameters": {"total": 0, "state": 1_234_000},
    "compressors": {
        "xz -9e": {"bits_per_byte": 2.625, "window": 1 << 26},
        "bz2 -9": {"bits_per_byte": 2.75, "window": 900_000},
    },
}


def counted(folder: Path, order: int, test: float, **more: Any) -> Path:
    config = {"model": {"order": order}, "train": {"steps": 1}}
    return write_run(folder, "ngram", test=test, config=config, **(COUNTED | more))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """The floor is order 5, at 2.5: of three models one crosses it, one with one of two seeds."""
    folder = tmp_path / "runs"
    counted(folder / "five", 5, 2.5)
    counted(folder / "two", 2, 3.5)
    write_run(folder / "gpt", "gpt", test=2.0)
    for seed, test in enumerate((2.4, 2.6)):
        write_run(folder / f"mlp-{seed}", "mlp", seed, test=test)
    write_run(folder / "table", "table", test=4.0, flops_per_token=0.0)
    return folder


def compared(folder: Path) -> Comparison:
    return compare_runs(find_runs([folder]))


LINE = (
    "The floor on text is ngram · order=5, counted in one pass over train: 2.500 test bits per "
    "byte, 2.500 on validation. By validation, gpt crosses the floor after 6.40 k tokens; mlp "
    "crosses the floor after 6.40 k tokens with 1 of 2 seeds; table has not crossed it."
)


def test_who_crosses_it_after_how_many_tokens(runs: Path) -> None:
    assert verdict.floor_lines(compared(runs)) == [LINE]
    assert LINE in printed(runs)
    assert LINE in html.unescape(export.markdown(compared(runs)))


def test_those_that_have_not_crossed_it_are_named_together(runs: Path) -> None:
    write_run(runs / "worse", "worse", test=4.1)
    (line,) = verdict.floor_lines(compared(runs))
    assert line.endswith("with 1 of 2 seeds; none of table, worse has crossed it.")


def test_a_crossing_is_the_first_evaluation_below_it(runs: Path) -> None:
    """Of 6, 3 and 2 bits after 0, 3,200 and 6,400 tokens."""
    groups = compared(runs).ranked
    floor, gpt = find_floor(groups), groups[0]
    assert floor is not None
    assert floor.crossings(gpt) == [6400]
    for level, after in ((6.5, 0), (3.001, 3200), (3.0, 6400), (2.0, None)):
        assert type(floor)(floor.group, level).crossings(gpt) == [after]
    assert type(floor)(floor.group, None).crossings(gpt) is None


def test_the_best_by_validation_is_the_floor(tmp_path: Path) -> None:
    """Never by test."""
    scores = {"nats_per_token": 1.0, "bytes": 1000, "tokens": 1000, "stride": None}
    counted(tmp_path / "a", 3, 2.5, val=scores | {"bits_per_byte": 2.9})
    counted(tmp_path / "b", 4, 2.6, val=scores | {"bits_per_byte": 2.8})
    floor = find_floor(compared(tmp_path).ranked)
    assert floor is not None
    assert (floor.group.variant, floor.level) == ("order=4", 2.8)


def test_without_one_the_table_says_how_to_get_it(tmp_path: Path) -> None:
    write_run(tmp_path / "gpt", "gpt")
    assert "No floor on text: none of its models was counted. A run of model=ngram" in printed(
        tmp_path
    )


def test_the_headline_is_of_the_trained_and_says_when_they_lie_above(tmp_path: Path) -> None:
    counted(tmp_path / "five", 5, 2.5)
    write_run(tmp_path / "mlp", "mlp", test=2.9)
    write_run(tmp_path / "gpt", "gpt", test=2.7)
    (line,) = verdict.headlines(compared(tmp_path))
    assert line.claim.startswith("gpt reaches 2.700 test bits per byte on text (1 seed), 0.200")
    assert line.claim.endswith(" That is above the floor: ngram, counted, has 2.500.")
    write_run(tmp_path / "best", "gru", test=2.4)
    assert "above the floor" not in verdict.headlines(compared(tmp_path))[0].claim


def test_one_pass_is_no_unequal_budget(runs: Path) -> None:
    (line,) = verdict.headlines(compared(runs))
    assert "Equal budget: 100 steps, 6,400 training tokens" in line.evidence
    assert verdict.notes(compared(runs)) == []


def test_rows_of_the_table(runs: Path) -> None:
    lines = [line.split() for line in printed(runs).splitlines()]
    (row,) = [line for line in lines if "(order=5)" in line]
    assert row[:6] == ["3", "ngram", "(order=5)", "1", "2.500", "2.500"]
    assert row[6:12] == ["1.23", "M", "counts", "–", "0", "one"]
    assert ["–", "xz", "-9e", "(67.1", "MB)", "–", "2.625"] in [line[:7] for line in lines]
    table = html.unescape(export.markdown(compared(runs)))
    assert "| bz2 -9 (900 kB) | – | 2.750 | – |" in table
    rows = list(csv.DictReader(io.StringIO(export.csv_table(compared(runs)))))
    assert [row["model"] for row in rows][-2:] == ["xz -9e", "bz2 -9"]
    assert rows[-2]["test bits per byte"] == "2.625"
    assert [row["counts"] for row in rows if row["model"] == "ngram"] == ["1234000.0"] * 2


def test_what_nobody_counted_is_neither_on_a_front_nor_keeps_others_off(runs: Path) -> None:
    """Zero FLOPs and parameters of look-ups; by seconds a floor is on the front like anyone."""
    groups = compared(runs).ranked
    fronts = {
        cost.name: {point.label for point in scatter_points(groups, cost)[1]}
        for cost in SCATTER_COSTS
    }
    assert fronts["FLOPs"] == {"gpt"}
    assert fronts["parameters"] == {"gpt"}
    assert fronts["seconds"] == {"gpt", "ngram · order=5"}
    points, _ = scatter_points(groups, SCATTER_COSTS[1])
    assert sum(point.cost == 0 for point in points) == 3  # they are drawn


def test_it_is_a_level_line(runs: Path, tmp_path: Path) -> None:
    styled = list(enumerate(compared(runs).ranked))
    series = validation_series(styled, CURVE_AXES[1])
    assert [line.label for line in series if line.level] == ["ngram · order=5", "ngram · order=2"]
    text = page(runs, tmp_path / "report.html")
    for words in ("order=5 (floor)", "xz -9e (67.1 MB)", "is a level line: a floor"):
        assert words in text
    counted(tmp_path / "alone" / "five", 5, 2.5)  # no cost at all, no front
    assert "On the front: none" in page(tmp_path / "alone", tmp_path / "alone.html")


def test_a_strangers_compressor_is_escaped(tmp_path: Path) -> None:
    name = "<b>\x1b[2J|\nx"
    counted(tmp_path / "a", 5, 2.5, compressors={name: {"bits_per_byte": 1.0, "window": 5}})
    report, markdown = page(tmp_path, tmp_path / "report.html"), export.markdown(compared(tmp_path))
    assert "<b>" not in report
    for text in (printed(tmp_path), report, markdown):
        assert "\x1b" not in text
    assert "&lt;b&gt;" in markdown
    assert "\\| x (5B)" in markdown
