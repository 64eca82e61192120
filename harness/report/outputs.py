"""A comparison in every format that `harness.compare` writes."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.common.errors import RunFailure, UsageError
from harness.common.files import write_atomically
from harness.report.drawing.plots import write_plots
from harness.report.html.document import Asked, write_report
from harness.report.records.runs import RunRecord, require_complete
from harness.report.records.selection import Split, log_reading
from harness.report.statistics.ranking import compare_runs
from harness.report.statistics.targets import find_costs
from harness.report.text import export
from harness.report.text.target_terminal import print_costs
from harness.report.text.terminal import print_comparison
from harness.report.text.where_terminal import print_where
from harness.report.where import find_where


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
    split: Split | None = None,
    where: bool = False,
    target: str | None = None,
    trust: Sequence[str] = (),
) -> int:
    """Write the comparison of these runs, which were found in `paths`, in every format that has a
    path, and print it. complete: rank no run whose certificate is a sample.

    split: read test of runs that have not been chosen, too, which is logged; or validation of any.
    where: also where the differences come from, by the validation text unless split is "test".
    target: also what that validation score costs. trust: packages of the user's own models, which
    `where` may load.

    Raises UsageError for a path that can't be written, and as `find_where` and `find_costs`."""
    if complete:
        records = [require_complete(run) for run in records]
    if split == "test":
        log_reading(records, shlex.join(["harness.compare", *map(str, paths), "--split", "test"]))
    comparison = compare_runs(records, split)
    costs = None if target is None else find_costs(comparison, target)
    found = find_where(comparison, split or "val", trust) if where else None
    written = []
    try:
        for path, write in (
            (markdown, lambda: export.markdown(comparison)),
            (csv, lambda: export.csv_table(comparison)),
            (runs_csv, lambda: export.csv_runs(comparison.records, comparison.split)),
        ):
            if path is not None:
                write_atomically(path, write().encode(errors="replace"))
                written.append(f"{path} written")
        if out is not None:
            write_report(comparison, out, paths, Asked(found, costs))
            written.append(f"{out} written")
        if plots is not None:
            written.append(f"{plots}: {len(write_plots(comparison, plots))} files written")
    except RunFailure as error:
        raise UsageError(str(error)) from None
    # Last: whoever reads it may not read to the end (`… | head`).
    print_comparison(comparison, sys.stdout)
    if found is not None:
        print_where(found, sys.stdout)
    if costs is not None:
        print_costs(costs, sys.stdout)
    for line in written:
        print(line)
    return 0
