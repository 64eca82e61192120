"""Draw the internals recorded by `observe=basic` or `full`, one column per run.

python -m harness.inside RUN_OR_FOLDER… --out inside.png
"""

from __future__ import annotations

from pathlib import Path

from harness.cli.tool import Parser, command
from harness.common.errors import UsageError

MOST_RUNS = 6


@command
def main() -> int:
    """Draw the figure and print its path."""
    parser = Parser(prog="python -m harness.inside", description=__doc__)
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN_OR_FOLDER",
        help="a run's folder, or a folder that holds runs at any depth",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("inside.png"), help=".png or .svg")
    options = parser.parse_args()
    if options.out.suffix not in (".png", ".svg"):
        raise UsageError(f"--out {options.out} should end in .png or .svg")

    from harness.report.drawing.inside import observed, write_figure

    runs = observed(options.runs)
    if len(runs) > MOST_RUNS:
        raise UsageError(f"{len(runs)} runs are too many for one figure: {MOST_RUNS} fit")
    write_figure(runs, options.out)
    print(options.out)
    return 0


if __name__ == "__main__":
    main()
