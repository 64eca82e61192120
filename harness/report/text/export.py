"""The comparison as Markdown and as CSV, for papers and pages."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from harness.report.records.groups import Group, reader, why_uncounted
from harness.report.records.runs import RunRecord
from harness.report.statistics.differences import neighbours
from harness.report.statistics.ranking import Comparison
from harness.report.text.columns import LOSSY_NOTE, MEANS_NOTE, columns, place
from harness.report.text.pairs import sentence
from harness.report.text.verdict import headlines, notes
from harness.runs.summary import TrainCost

COSTS = {f"train {name}": f"train.{name}" for name in TrainCost.model_fields}
GROUP_NUMBERS = {
    "test bits per byte": "test.bits_per_byte",
    "test nats per token": "test.nats_per_token",
    "val bits per byte": "val.bits_per_byte",
    "val nats per token": "val.nats_per_token",
    "parameters": "parameters",
    "FLOPs per token": "flops_per_token",
    **COSTS,
}
RUN_NUMBERS = {
    "test nats_per_token": "test.nats_per_token",
    "test bits_per_byte": "test.bits_per_byte",
    "val nats_per_token": "val.nats_per_token",
    "val bits_per_byte": "val.bits_per_byte",
    "parameters": "parameters",
    "flops per token": "flops_per_token",
    **COSTS,
}


def markdown(comparison: Comparison) -> str:
    """The headlines, the caveats, the tables and the pairs of `harness.compare`, for GitHub."""
    parts = [*map(str, headlines(comparison)), *(f"**{note}**" for note in notes(comparison))]
    for groups, lossy in ((comparison.ranked, False), (comparison.lossy, True)):
        if not groups:
            continue
        shown = columns(groups, lossy=lossy)
        lines = [
            [f"{column.header} {column.unit}".strip() for column in shown],
            ["---" if column.is_text else "---:" for column in shown],
            *([column.read(group)[0] for column in shown] for group in groups),
        ]
        if lossy:
            parts.append(f"Not ranked ({LOSSY_NOTE}):")
        parts.append("\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines))
    parts.append(MEANS_NOTE)
    pairs = neighbours(comparison.pairs, comparison.ranked)
    parts.append("\n".join(f"- {sentence(pair)}" for pair in pairs))
    return "\n\n".join(filter(None, parts)) + "\n"


def csv_table(comparison: Comparison) -> str:
    """The same table, every number in full: a line per configuration, means beside deviations."""
    heads = ["place", "model", "variant", "tokenizer", "data", "seeds"]
    heads += [f"{name}{more}" for name in GROUP_NUMBERS for more in ("", " ±")]

    def line(group: Group, rank: int | str) -> Iterable[object]:
        yield from (rank, group.model, group.variant, group.tokenizer, group.data)
        yield len(group.counted)
        for path in GROUP_NUMBERS.values():
            spread = group.spread(reader(path))
            yield from (spread.mean, spread.std) if spread else (None, None)

    ranked = [line(group, place(comparison.ranked, n)) for n, group in enumerate(comparison.ranked)]
    return _csv([heads, *ranked, *(line(group, "") for group in comparison.lossy)])


def csv_runs(records: Sequence[RunRecord]) -> str:
    """One line per run, counted or not, with every number in full."""
    names = ("folder", "model", "tokenizer", "data", "seed", "status")
    lines: list[Iterable[object]] = [[*names, "not counted because", *RUN_NUMBERS]]
    for run in records:
        numbers = (reader(path)(run) for path in RUN_NUMBERS.values())
        lines.append([*(getattr(run, name) for name in names), why_uncounted(run), *numbers])
    return _csv(lines)


def _csv(lines: Iterable[Iterable[object]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(lines)
    return out.getvalue()


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
