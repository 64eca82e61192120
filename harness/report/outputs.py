"""A comparison in every format that `harness.compare` writes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from harness.common.errors import UsageError
from harness.report.drawing.plots import write_plots
from harness.report.html.document import write_report
from harness.report.records.runs import RunRecord, require_complete
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
    csv: Path | None,
    runs_csv: Path | None,
    complete: bool = False,
) -> int:
    """Print the comparison of these runs, which were found in `paths`, and write every format that
    has a path. complete: rank no run whose certificate is a sample.

    Raises UsageError for a path that can't be written."""
    if complete:
        records = [require_complete(run) for run in records]
    comparison = compare_runs(records)
    print_comparison(comparison, sys.stdout)
    try:
        for path, write in (
            (markdown, lambda: export.markdown(comparison)),
            (csv, lambda: export.csv_table(comparison)),
            (runs_csv, lambda: export.csv_runs(records)),
        ):
            if path is not None:
                path.write_text(write(), encoding="utf-8", errors="replace")
                print(f"{path} written")
        if out is not None:
            write_report(comparison, out, paths)
            print(f"{out} written")
        if plots is not None:
            print(f"{plots}: {len(write_plots(comparison, plots))} files written")
    except OSError as error:
        raise UsageError(f"{error.filename}: can't be written ({error.strerror})") from None
    return 0
