"""The comparison as Markdown and as CSV, for papers and pages."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from harness.report.differences import neighbours, sentence
from harness.report.ranking import Comparison, Group, lossy_score, ranking_score, why_uncounted
from harness.report.runs import Cost, RunRecord
from harness.report.verdict import LOSSY_NOTE, MEANS_NOTE, columns, headlines, notes, place


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
    """The same table, every number in full: a line a configuration, means and deviations apart."""
    names = ("place", "model", "variant", "tokenizer", "data", "seeds")
    numbers: dict[str, Callable[[RunRecord], float | None]] = {
        "test bits per byte": ranking_score,
        "test nats per token": lossy_score,
        "val bits per byte": lambda run: run.val.bits_per_byte if run.val else None,
        "val nats per token": lambda run: run.val.nats_per_token if run.val else None,
        "parameters": lambda run: run.parameters,
        "FLOPs per token": lambda run: run.flops_per_token,
        **{f"train {name}": partial(_spent, name) for name in COSTS},
    }

    def line(group: Group, rank: int | str) -> Iterable[object]:
        yield from (rank, group.model, group.variant, group.tokenizer, group.data)
        yield len(group.counted)
        for read in numbers.values():
            spread = group.spread(read)
            yield from (spread.mean, spread.std) if spread else (None, None)

    ranked = [line(group, place(comparison.ranked, n)) for n, group in enumerate(comparison.ranked)]
    heads = [f"{name}{more}" for name in numbers for more in ("", " ±")]
    return _csv([[*names, *heads], *ranked, *(line(group, "") for group in comparison.lossy)])


def _spent(name: str, run: RunRecord) -> float | None:
    found: float | None = getattr(run.train, name)
    return found


COSTS = tuple(Cost.__dataclass_fields__)


def csv_runs(records: Sequence[RunRecord]) -> str:
    """One line a run, counted or not, with every number in full."""
    scores = ("nats_per_token", "bits_per_byte")
    lines: list[Iterable[object]] = [
        ["folder", "model", "tokenizer", "data", "seed", "status", "not counted because"]
        + [f"{split} {name}" for split in ("test", "val") for name in scores]
        + ["parameters", "flops per token", *(f"train {name}" for name in COSTS)]
    ]
    for run in records:
        found = [getattr(split, name, None) for split in (run.test, run.val) for name in scores]
        row = [run.folder, run.model, run.tokenizer, run.data, run.seed, run.status]
        row += [why_uncounted(run), *found, run.parameters, run.flops_per_token]
        lines.append([*row, *(getattr(run.train, name) for name in COSTS)])
    return _csv(lines)


def _csv(lines: Iterable[Iterable[object]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(lines)
    return out.getvalue()


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
