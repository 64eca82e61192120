"""The comparison as Markdown and as CSV, for papers and pages."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.common import text
from harness.report.records.groups import Group, own_names, own_reader, reader, why_uncounted
from harness.report.records.runs import RunRecord
from harness.report.records.selection import Split
from harness.report.statistics.differences import adjacent_pairs
from harness.report.statistics.floor import references
from harness.report.statistics.ranking import Comparison
from harness.report.statistics.texts import text_table
from harness.report.text import texts
from harness.report.text.columns import (
    LOSSY_NOTE,
    MEANS_NOTE,
    REFERENCES_NOTE,
    columns,
    ranks,
    reference_cells,
)
from harness.report.text.pairs import caveats, sentence
from harness.report.text.verdict import (
    copied_lines,
    equality_lines,
    floor_lines,
    headlines,
    notes,
    plan_lines,
)
from harness.runs.summary import TrainCost

COSTS = {f"train {name}": f"train.{name}" for name in TrainCost.model_fields}
GROUP_NUMBERS = {
    "test bits per byte": "test.bits_per_byte",
    "test nats per token": "test.nats_per_token",
    "unseen bits per byte": "without_copied.bits_per_byte",
    "val bits per byte": "val.bits_per_byte",
    "val nats per token": "val.nats_per_token",
    "parameters": "parameters",
    "active parameters": "active",
    "counts": "state",
    "FLOPs per token": "flops_per_token",
    **COSTS,
}
RUN_NUMBERS = {
    "test nats_per_token": "test.nats_per_token",
    "test bits_per_byte": "test.bits_per_byte",
    "unseen bits_per_byte": "without_copied.bits_per_byte",
    "val nats_per_token": "val.nats_per_token",
    "val bits_per_byte": "val.bits_per_byte",
    "parameters": "parameters",
    "active parameters": "active",
    "flops per token": "flops_per_token",
    **COSTS,
}


def markdown(comparison: Comparison) -> str:
    """Headlines, caveats, tables and pairs as GitHub Markdown."""
    parts = [
        *(text.markdown(str(line)) for line in headlines(comparison)),
        *(f"**{text.markdown(note)}**" for note in notes(comparison)),
    ]
    for groups, lossy in ((comparison.ranked, False), (comparison.lossy, True)):
        if not groups:
            continue
        shown = columns(groups, lossy=lossy)
        lines = [
            [f"{column.header} {column.unit}".strip() for column in shown],
            ["---" if column.is_text else "---:" for column in shown],
            *([text.markdown(column.read(group)[0]) for column in shown] for group in groups),
            *(
                [text.markdown(cell) for cell in reference_cells(each, shown)]
                for each in ([] if lossy else references(groups))
            ),
        ]
        if lossy:
            parts.append(f"Not ranked ({LOSSY_NOTE}):")
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    parts.append(MEANS_NOTE)
    if references(comparison.ranked):
        parts.append(REFERENCES_NOTE)
    if comparison.ranked:
        lines_under = copied_lines, equality_lines, floor_lines, plan_lines
        under = (line for lines in lines_under for line in lines(comparison))
        parts += [text.markdown(line) for line in under]
    if table := text_table(comparison):
        heads = [f"{name} ({part})" for name, part in table.names.values()]
        lines = [["model", *map(text.markdown, heads)], ["---", *["---:"] * len(heads)]]
        for group, places in table.rows:
            cells = [texts.cell(places.get(each)) for each in table.names]
            lines.append([text.markdown(group.label), *cells])
        parts += ["\n".join(f"| {' | '.join(line)} |" for line in lines), texts.NOTE]
    pairs = adjacent_pairs(comparison.pairs, comparison.ranked)
    parts.append("\n".join(f"- {text.markdown(sentence(pair))}" for pair in pairs))
    parts.append(" ".join(map(text.markdown, caveats(pairs))))
    return "\n\n".join(filter(None, parts)) + "\n"


def latex(comparison: Comparison) -> str:
    """The tables for a paper, which needs \\usepackage{booktabs}; what qualifies them as
    comments."""
    parts = []
    for groups, lossy in ((comparison.ranked, False), (comparison.lossy, True)):
        if not groups:
            continue
        shown = columns(groups, lossy=lossy)
        rows = [[text.latex(column.read(group)[0]) for column in shown] for group in groups]
        rows += [
            [text.latex(cell) for cell in reference_cells(each, shown)]
            for each in ([] if lossy else references(groups))
        ]
        aligned = "".join("l" if column.is_text else "r" for column in shown)
        parts.append(
            "\n".join(
                [
                    rf"\begin{{tabular}}{{{aligned}}}",
                    r"\toprule",
                    " & ".join(text.latex(column.header) for column in shown) + r" \\",
                    " & ".join(text.latex(column.unit) for column in shown) + r" \\",
                    r"\midrule",
                    *(" & ".join(row) + r" \\" for row in rows),
                    r"\bottomrule",
                    r"\end{tabular}",
                ]
            )
        )
    said = (*map(str, headlines(comparison)), *notes(comparison), MEANS_NOTE)
    comments = [f"% {text.visible_line(line)}" for line in said]
    return "\n\n".join([r"% needs \usepackage{booktabs}", *parts, "\n".join(comments)]) + "\n"


def csv_table(comparison: Comparison) -> str:
    """A line for each configuration: means and standard deviations in full precision."""
    heads = ["place", "model", "variant", "tokenizer", "data", "seeds"]
    numbers = {name: reader(path) for name, path in GROUP_NUMBERS.items()}
    both = [*comparison.ranked, *comparison.lossy]
    for split in ("test", "val"):
        names = own_names(both, split)
        numbers |= {f"{split} {name}": own_reader(split, name) for name in names}
    heads += [f"{name}{more}" for name in numbers for more in ("", " ±")]

    def line(group: Group, place: int | str) -> Iterable[object]:
        yield from (place, group.model, group.variant, group.tokenizer, group.data)
        yield len(group.counted)
        for read in numbers.values():
            spread = group.spread(read)
            yield from (spread.mean, spread.std) if spread else (None, None)

    ranked = [
        line(group, place)
        for place, group in zip(ranks(comparison.ranked), comparison.ranked, strict=True)
    ]
    others = [line(group, "") for group in comparison.lossy]
    others += [
        ["", each.label, "", "", each.data, "", each.score, *[None] * (len(heads) - 7)]
        for each in references(comparison.ranked)
    ]
    return _csv([heads, *ranked, *others])


def csv_runs(records: Sequence[RunRecord], split: Split = "test") -> str:
    """A line for each run, counted or not, with numbers in full precision."""
    names = ("folder", "model", "tokenizer", "data", "seed", "status")
    lines: list[Iterable[object]] = [[*names, "not counted because", *RUN_NUMBERS]]
    for run in records:
        numbers = (reader(path)(run) for path in RUN_NUMBERS.values())
        lines.append([*(getattr(run, name) for name in names), why_uncounted(run, split), *numbers])
    return _csv(lines)


def _csv(lines: Iterable[Iterable[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for line in lines:
        # Numbers may begin with a minus sign; names may not.
        cells = (text.csv_cell(str(x)) if isinstance(x, str | Path) else x for x in line)
        writer.writerow(cells)
    return out.getvalue()
