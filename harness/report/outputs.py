"""A comparison in every format that `harness.compare` writes."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.common.errors import RunFailure, UsageError
from harness.common.files import write_atomically
from harness.report.drawing.plots import write_plots
from harness.report.html.document import write_report
from harness.report.records.runs import RunRecord, require_complete
from harness.report.records.selection import Split, log_reading
from harness.report.statistics.ranking import compare_runs
from harness.report.text import export
from harness.report.text.terminal import print_comparison


def compare(
    records: Sequence[RunRecord],
    *,
    paths: Sequence[Path],
    out: Path | None,
    plots: Path | None,
    markdown: Path | None,
    latex: Path | None,
    csv: Path | None,
    runs_csv: Path | None,
    complete: bool = False,
    split: Split | None = None,
    ladder: bool = False,
) -> int:
    """Write the comparison of these runs, which were found in `paths`, in every format that has a
    path, and print it. complete: rank no run whose certificate is a sample.

    split: read test of runs that have not been chosen, too, which is logged; or validation of any.
    ladder: the runs are steps, in the order of their names; show what each gains.

    Raises UsageError for a path that can't be written."""
    if complete:
        records = [require_complete(run) for run in records]
    if split == "test":
        log_reading(records, shlex.join(["harness.compare", *map(str, paths), "--split", "test"]))
    comparison = replace(compare_runs(records, split), is_ladder=ladder)
    written = []
    try:
        for path, write in (
            (markdown, lambda: export.markdown(comparison)),
            (latex, lambda: export.latex(comparison)),
            (csv, lambda: export.csv_table(comparison)),
            (runs_csv, lambda: export.csv_runs(comparison.records, comparison.split)),
        ):
            if path is not None:
                write_atomically(path, write().encode(errors="replace"))
                written.append(f"{path} written")
        if out is not None:
            write_report(comparison, out, paths)
            written.append(f"{out} written")
        if plots is not None:
            written.append(f"{plots}: {len(write_plots(comparison, plots))} files written")
    except RunFailure as error:
        raise UsageError(str(error)) from None
    # Last: whoever reads it may not read to the end (`… | head`).
    print_comparison(comparison, sys.stdout)
    for line in written:
        print(line)
    return 0
