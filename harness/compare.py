"""`python -m harness.compare RUN_OR_FOLDER…`: what the runs reached, and at what cost."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.cli import Parser, run_tool
from harness.report.records.runs import find_runs


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the comparison and writes what was asked for.

    Raises UsageError for a path without runs, or for one that can't be written.
    """
    options = _parse(arguments)
    records = find_runs(options.paths)
    from harness.report.outputs import print_comparison, write_outputs

    print_comparison(records, sys.stdout)
    for written in write_outputs(records, **vars(options)):
        print(written)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
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
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_tool(main)
