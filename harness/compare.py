"""Compare runs: what they reached, and at what cost.

python -m harness.compare RUN_OR_FOLDER… --out report.html
"""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cli.tool import Parser, run_tool


def main() -> None:
    """The command."""
    run_tool(_compare)


def _compare() -> int:
    """Prints the comparison and writes what was asked for.

    Raises UsageError for a path without runs, or for one that can't be written.
    """
    options = _parse()

    from harness.report.records.runs import find_runs

    records = find_runs(options.paths)  # a wrong path is answered before matplotlib is imported

    from harness.report.outputs import compare

    return compare(records, **vars(options))


def _parse() -> argparse.Namespace:
    parser = Parser(
        prog="python -m harness.compare",
        description="Compare runs: quality in test bits per byte beside what it cost, over seeds.",
    )
    parser.add_argument(
        "paths",
        type=Path,
        nargs="+",
        metavar="RUN_OR_FOLDER",
        help="a run's folder, or a folder that holds runs at any depth",
    )
    for name, where, what in (
        ("out", "FILE", "the report, one HTML file"),
        ("plots", "DIR", "the figures, as PNG and SVG"),
        ("markdown", "FILE", "the table"),
        ("csv", "FILE", "the table, every number in full"),
        ("runs-csv", "FILE", "one line a run, counted or not"),
    ):
        parser.add_argument(f"--{name}", type=Path, metavar=where, help=f"write there {what}")
    return parser.parse_args()


if __name__ == "__main__":
    main()
