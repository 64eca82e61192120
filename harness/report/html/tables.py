"""The report's tables: the ranking, the pairs, the configurations and every run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.report.drawing.curves import MOST_DRAWN
from harness.report.records.groups import Group
from harness.report.records.runs import RunRecord
from harness.report.statistics.differences import Pair
from harness.report.statistics.paired import LEVEL, Interval
from harness.report.statistics.ranking import Comparison
from harness.report.text.columns import columns, place, result, run_name, seed
from harness.report.text.format import chance, one_line, signed


@dataclass(frozen=True)
class Head:
    """A column's heading. `text` columns are left-aligned and sort by letters."""

    title: str
    unit: str = ""
    text: bool = False
    kind: str = ""

    def classes(self, kind: str = "") -> str:
        """The CSS classes of the heading, or of a cell under it that may have a `kind`."""
        return f"{'text ' if self.text else ''}{kind or self.kind}".strip()


@dataclass(frozen=True)
class Cell:
    """A cell: its text and what it sorts by ("" goes last).

    config: the number of the configuration that the text leads to. swatch: the number of the line
    style shown before it. note: small print behind it. interval: where on the axis that all rows
    share an interval is drawn. code: whether the text is set as code. kind: a CSS class.
    """

    text: str
    key: float | str = ""
    config: int | None = None
    swatch: int | None = None
    note: str = ""
    interval: Mapping[str, str] | None = None
    code: bool = False
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """`name` says what it holds to those who can't see it."""

    name: str
    heads: Sequence[Head]
    rows: Sequence[Sequence[Cell]]


def ranking(comparison: Comparison, groups: Sequence[Group], name: str, *, lossy: bool) -> Table:
    """The groups with their scores and costs; lossy ones have no place."""
    shown = columns(groups, lossy=lossy)
    heads = [] if lossy else [Head("#", kind="rank")]
    heads += [Head(column.header, column.unit, column.is_text) for column in shown]
    rows = []
    for index, group in enumerate(groups):
        number = comparison.number(group)
        row = [] if lossy else [Cell(str(place(groups, index)), index)]
        for column in shown:
            style = swatch(number) if column.header == "model" else None
            row.append(Cell(*column.read(group), config=number, swatch=style))
        rows.append(row)
    return Table(name, heads, rows)


def swatch(number: int) -> int | None:
    """The line style of a group that is drawn."""
    return number if number < MOST_DRAWN else None


def pairs(comparison: Comparison, tested: Sequence[tuple[Pair, Interval]]) -> Table:
    """A row for each pair that was tested."""
    low = min(0.0, *(interval.low for _, interval in tested))
    high = max(0.0, *(interval.high for _, interval in tested))

    def at(value: float) -> str:
        return f"{4 + 112 * (value - low) / ((high - low) or 1):.1f}"

    heads = [
        Head("first", text=True), Head("second", text=True), Head("difference", "bits/byte"),
        Head(f"{LEVEL:.0%} interval", "bits/byte"), Head("", kind="bar"), Head("p", "after Holm"),
        Head("seeds", "in common"), Head("is the first better?", text=True),
    ]  # fmt: skip
    rows = []
    for pair, found in tested:
        first, second = comparison.number(pair.better), comparison.number(pair.worse)
        drawn = {name: at(getattr(found, name)) for name in ("low", "mean", "high")}
        of_text = "(text)" if len(pair.seeds) == 1 else ""
        span = f"{signed(found.low)} to {signed(found.high)}"
        yes = "yes" if len(pair.seeds) > 1 else "with this seed"
        answer = yes if pair.settled else "not shown"
        rows.append(
            [
                Cell(pair.better.label, pair.better.label, first, swatch(first)),
                Cell(pair.worse.label, pair.worse.label, second, swatch(second)),
                Cell(signed(found.mean), found.mean, first),
                Cell(span, found.low, second),
                Cell("", found.mean, interval={"zero": at(0)} | drawn),
                Cell(chance(pair.p), pair.p, second, note=of_text),
                Cell(str(len(pair.seeds)), len(pair.seeds), first),
                Cell(answer, answer, kind="" if pair.settled else "open"),
            ]
        )
    return Table("Differences between pairs", heads, rows)


def differing_settings(groups: Sequence[Group]) -> Table:
    """A row for each setting that is not the same in all groups."""
    keys = sorted({key for group in groups for key in group.config})
    values = {key: [group.config.get(key, "–") for group in groups] for key in keys}
    rows = [
        [Cell(key, key, code=True), *(Cell(value, value) for value in own)]
        for key, own in values.items()
        if len(set(own)) > 1
    ]
    heads = [Head("key", text=True), *(Head(group.label, text=True) for group in groups)]
    return Table("Settings that differ", heads, rows)


def runs(comparison: Comparison) -> Table:
    """Every run that was found, also those that do not count, with the reason."""
    reasons = {run.folder: reason for run, reason in comparison.uncounted}
    heads = [
        Head("run", text=True), Head("model", text=True), Head("tokenizer", text=True),
        Head("seed"), Head("status", text=True), Head("test"),
        Head("why it is not counted" if reasons else "", text=True, kind="why"),
    ]  # fmt: skip
    rows = []
    for run in sorted(comparison.records, key=lambda run: (run.folder in reasons, _natural(run))):
        reason = reasons.get(run.folder)
        name, number = run_name(run, comparison.records), _number_of(run, comparison)
        score = result(run) if reason is None else ""
        rows.append(
            [
                Cell(name, name, number, code=True),
                Cell(run.model, run.model),
                Cell(run.tokenizer, run.tokenizer),
                Cell(seed(run), "" if run.seed is None else run.seed, number),
                Cell(run.status, run.status, kind="" if reason is None else "open"),
                Cell(score, score.split(" ")[0], number),
                Cell(one_line(reason or ""), reason or ""),
            ]
        )
    return Table("Every run", heads, rows)


def _natural(run: RunRecord) -> list[tuple[int, str]]:
    """2-gpt comes before 10-gpt."""
    parts = re.findall(r"\d+|\D+", str(run.folder))
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _number_of(run: RunRecord, comparison: Comparison) -> int | None:
    groups = enumerate(comparison.configurations)
    return next((n for n, group in groups if any(own is run for own in group.runs)), None)
