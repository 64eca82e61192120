"""The comparison as Markdown and as CSV, for papers and pages."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from harness.ranking import compare_runs, why_uncounted
from harness.runs import Cost, RunRecord
from harness.verdict import LOSSY_NOTE, MEANS_NOTE, columns, headline, notes


def markdown(records: Sequence[RunRecord]) -> str:
    """The headline, the caveats and the tables of `harness.compare`, for GitHub."""
    comparison = compare_runs(records)
    parts = [*headline(comparison), *(f"**{note}**" for note in notes(comparison))]
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
    return "\n\n".join([*parts, MEANS_NOTE]) + "\n"


def csv_text(records: Sequence[RunRecord]) -> str:
    """One line a run, counted or not, with every number in full precision."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    costs = list(Cost.__dataclass_fields__)
    scores = ("nats_per_token", "bits_per_byte")
    writer.writerow(
        ["folder", "model", "tokenizer", "data", "seed", "status", "not counted because"]
        + [f"{split} {name}" for split in ("test", "val") for name in scores]
        + ["parameters", "flops per token", *(f"train {name}" for name in costs)]
    )
    for run in records:
        found = [getattr(split, name, None) for split in (run.test, run.val) for name in scores]
        row = [run.folder, run.model, run.tokenizer, run.data, run.seed, run.status]
        row += [why_uncounted(run), *found, run.parameters, run.flops_per_token]
        writer.writerow([*row, *(getattr(run.train, name) for name in costs)])
    return out.getvalue()


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
