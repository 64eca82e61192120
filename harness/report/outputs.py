"""A comparison in each form that can be asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.common.errors import UsageError
from harness.report.drawing.plots import write_plots
from harness.report.html.document import write_report
from harness.report.records.runs import RunRecord, find_runs
from harness.report.statistics.ranking import compare_runs
from harness.report.text import export
from harness.report.text.terminal import print_comparison


def compare(
    paths: Sequence[Path],
    *,
    out: Path | None,
    plots: Path | None,
    markdown: Path | None,
    csv: Path | None,
    runs_csv: Path | None,
) -> int:
    """Print the comparison of the runs in `paths`, and write what has a path of its own.

    Raises UsageError for a path without runs, and for one that can't be written.
    """
    records = find_runs(paths)
    print_comparison(records, sys.stdout)
    for line in _write(records, paths, out, plots, markdown, csv, runs_csv):
        print(line)
    return 0


def _write(
    records: Sequence[RunRecord],
    paths: Sequence[Path],
    out: Path | None,
    plots: Path | None,
    markdown: Path | None,
    csv: Path | None,
    runs_csv: Path | None,
) -> Iterator[str]:
    comparison = compare_runs(records)
    try:
        for path, write in (
            (markdown, lambda: export.markdown(comparison)),
            (csv, lambda: export.csv_table(comparison)),
            (runs_csv, lambda: export.csv_runs(records)),
        ):
            if path is not None:
                path.write_text(write(), encoding="utf-8", errors="replace")
                yield f"{path} written"
        if out is not None:
            write_report(records, out, paths)
            yield f"{out} written"
        if plots is not None:
            yield f"{plots}: {len(write_plots(records, plots))} files written"
    except OSError as error:
        raise UsageError(f"{error.filename}: can't be written ({error.strerror})") from None
