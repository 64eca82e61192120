"""Compare finished runs: quality beside cost.

python -m harness.compare RUN_OR_FOLDER… --out report.html [--where] [--target SCORE]
"""

from __future__ import annotations

from pathlib import Path

from harness.cli.tool import Parser, command
from harness.common.errors import UsageError


@command
def main() -> int:
    """Print the comparison and write the requested files."""
    parser = Parser(
        prog="python -m harness.compare",
        description="Compare runs: quality in bits per byte beside what it cost, over seeds.",
    )
    parser.add_argument(
        "paths",
        type=Path,
        nargs="+",
        metavar="RUN_OR_FOLDER",
        help="a run's folder, or a folder that holds runs at any depth",
    )
    for name, where, what in (
        ("out", "FILE", "the report to one HTML file"),
        ("plots", "DIR", "the figures to a folder, as PNG and SVG"),
        ("markdown", "FILE", "the table as Markdown"),
        ("latex", "FILE", "the table as LaTeX"),
        ("csv", "FILE", "the table as CSV, with every digit"),
        ("runs-csv", "FILE", "one line per run, also those left out of the table"),
    ):
        parser.add_argument(f"--{name}", type=Path, metavar=where, help=f"write {what}")
    parser.add_argument(
        "--complete", action="store_true", help="rank only what was scored again token by token"
    )
    parser.add_argument(
        "--split",
        choices=("val", "test"),
        help="test, but val while there are variants of a model to choose from; test of those is "
        "logged in their folders",
    )
    parser.add_argument(
        "--where",
        action="store_true",
        help="also where the differences come from: by kinds of tokens, over the context, in the "
        "text itself; on validation, unless --split test",
    )
    parser.add_argument(
        "--target",
        metavar="SCORE",
        help="also what a validation score costs each model: 2.1 (bits per byte), 1.4nats (per "
        "token), floor, or a model, whose score it is",
    )
    parser.add_argument(
        "--trust", action="append", default=[], help="a package with your own models, for --where"
    )
    parser.add_argument(
        "--ladder", action="store_true", help="show what each model gains over the one before, in "
        "the order of their names",
    )  # fmt: skip
    options = parser.parse_args()
    if options.out is not None and options.out.suffix not in ("", ".html", ".htm"):
        raise UsageError(f"--out {options.out} should end in .html")

    from harness.report.records.runs import find_runs

    records = find_runs(options.paths)  # a wrong path is answered before matplotlib is imported

    if any(run.is_strangers for run in records):
        from harness.report.records.certified import certify_strangers

        records = certify_strangers(records, complete=options.complete)

    from harness.report.outputs import compare

    return compare(records, **vars(options))


if __name__ == "__main__":
    main()
