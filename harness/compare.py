"""`python -m harness.compare RUN_OR_FOLDER…`: what the runs reached, and at what cost."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from harness.cli.tool import Parser, run_tool
from harness.common.errors import UsageError
from harness.report.ranking import Comparison, Group, compare_runs
from harness.report.runs import RunRecord, find_runs

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from harness.report.verdict import Column

# The least width of output that is piped or saved, which must lose no column.
PLAIN_WIDTH = 160


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the comparison and writes what was asked for.

    Raises UsageError for a path without runs, or for one that can't be written.
    """
    from harness.report import export

    options = _parse(arguments)
    records = find_runs(options.paths)
    print_comparison(records, sys.stdout)
    try:
        comparison = compare_runs(records)
        for path, write in (
            (options.markdown, lambda: export.markdown(comparison)),
            (options.csv, lambda: export.csv_table(comparison)),
            (options.runs_csv, lambda: export.csv_runs(records)),
        ):
            if path is not None:
                path.write_text(write(), encoding="utf-8")
                print(f"{path} written")
        if options.out is not None:
            from harness.report.document import write_report

            write_report(records, options.out, options.paths)
            print(f"{options.out} written")
        if options.plots is not None:
            from harness.report.plots import write_plots

            files = write_plots(records, options.plots)
            print(f"{options.plots}: {len(files)} files written")
    except OSError as error:
        raise UsageError(f"{error.filename}: can't be written ({error.strerror})") from None
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
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="write the report there, one HTML file"
    )
    parser.add_argument(
        "--plots", type=Path, metavar="DIR", help="write the figures there, as PNG and SVG"
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there")
    parser.add_argument(
        "--csv", type=Path, metavar="FILE", help="write the table there, every number in full"
    )
    parser.add_argument(
        "--runs-csv", type=Path, metavar="FILE", help="write one line a run there, counted or not"
    )
    return parser.parse_args(arguments)


def print_comparison(records: Sequence[RunRecord], file: IO[str]) -> None:
    """Prints the ranking, what can't be ranked, and every run that doesn't count, with its reason.

    Not on a terminal: plain text, no colours, no column cut.
    """
    from rich.console import Console

    from harness.report.differences import neighbours, sentence
    from harness.report.verdict import (
        LOSSY_NOTE,
        MEANS_NOTE,
        by_tokenizer,
        headlines,
        losses,
        notes,
    )

    console = Console(file=file, highlight=False, markup=False, emoji=False)
    if not console.is_terminal or not file.isatty():
        console = Console(
            file=file, highlight=False, markup=False, emoji=False,
            width=PLAIN_WIDTH, force_terminal=False, color_system=None, legacy_windows=False,
        )  # fmt: skip
    comparison = compare_runs(records)
    # In a file or a pipe each of these stays one line, to be found by grep.
    whole = not console.is_terminal
    for line in map(str, headlines(comparison)):
        console.print(line, style="bold", soft_wrap=whole)
    for line in notes(comparison):
        console.print(f"! {line}", style="yellow", soft_wrap=whole)
    if comparison.ranked:
        _print_groups(console, comparison.ranked, lossy=False)
        console.print(MEANS_NOTE, style="dim")
        if best := by_tokenizer(comparison):
            console.print(best, soft_wrap=whole)
        for pair in neighbours(comparison.pairs, comparison.ranked):
            console.print(sentence(pair), soft_wrap=whole)
    if comparison.lossy:
        console.print(f"\nNot ranked ({LOSSY_NOTE})", style="bold")
        _print_groups(console, comparison.lossy, lossy=True)
        for line in losses(comparison):
            console.print(line, style="dim", soft_wrap=whole)
    if comparison.uncounted:
        console.print("\nNot counted", style="bold")
        console.print(_uncounted_table(comparison))


def _print_groups(console: "Console", groups: Sequence[Group], *, lossy: bool) -> None:
    """One table where it fits; on a narrow terminal several, each with the names in front."""
    from harness.report.verdict import columns

    def width(shown: "Sequence[Column]") -> int:
        unlimited = console.options.update(max_width=10_000)
        return console.measure(_table(groups, shown, lossy), options=unlimited).maximum

    every = columns(groups, lossy=lossy)
    if not console.is_terminal:
        console.width = max(PLAIN_WIDTH, width(every))
    names = [column for column in every if column.is_text]
    shown = names
    for column in every[len(names) :]:
        if shown != names and width([*shown, column]) > console.width:
            console.print(_table(groups, shown, lossy))
            shown = names
        shown = [*shown, column]
    console.print(_table(groups, shown, lossy))


def _table(groups: Sequence[Group], shown: "Sequence[Column]", lossy: bool) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from harness.report.verdict import place

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    if not lossy:
        table.add_column("#", justify="right", no_wrap=True)
    for column in shown:
        table.add_column(
            f"{column.header}\n{column.unit}",
            justify="left" if column.is_text else "right",
            no_wrap=not column.is_text,
            overflow="fold",
        )
    for index, group in enumerate(groups):
        cells = [Text(column.read(group)[0]) for column in shown]
        table.add_row(*([] if lossy else [str(place(groups, index))]), *cells)
    return table


def _uncounted_table(comparison: Comparison) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from harness.report.verdict import plain, run_name

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    table.add_column("run", overflow="fold")
    table.add_column("status", no_wrap=True)
    table.add_column("why", overflow="fold")
    for run, reason in comparison.uncounted:
        name = plain(run_name(run, comparison.records))
        table.add_row(Text(name), Text(run.status), Text(plain(reason)))
    return table


if __name__ == "__main__":
    run_tool(main)
