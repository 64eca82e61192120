"""Where differences come from, on a terminal or as plain text."""

from __future__ import annotations

from typing import IO

from rich.table import Table
from rich.text import Text

from harness.common.text import visible_line
from harness.report.statistics.where import PairWhere, Where
from harness.report.text.terminal import empty_table, plain_or_terminal
from harness.report.text.where import cells, context_lines, findings, pair_line


def print_where(found: Where, file: IO[str]) -> None:
    """Print a table for each pair, and how much context each model uses."""
    console = plain_or_terminal(file)
    whole = not console.is_terminal
    for pair in found.pairs:
        line = pair_line(pair.whole, pair.found.total, found.split)
        console.print(f"\n{visible_line(line)}", style="bold", soft_wrap=whole)
        for line in findings(pair.first, pair.second, pair.found):
            console.print(visible_line(line), soft_wrap=whole)
        console.print(_table(pair))
    for line in context_lines(found.curves):
        console.print(visible_line(line), soft_wrap=whole)


def _table(pair: PairWhere) -> Table:
    table = empty_table()
    labels = [visible_line(group.label) for group in (pair.first, pair.second)]
    table.add_column("tokens", overflow="fold")
    for head in ("share", *(f"{label}\nbits/token" for label in labels)):
        table.add_column(head, justify="right", overflow="fold")
    for head in ("difference\nbits/byte", "interval", "part of it", "p\nafter Holm"):
        table.add_column(head, justify="right", no_wrap=True)
    for division in pair.found.divisions:
        table.add_row(Text(visible_line(division.title), style="bold"))
        for name, *numbers in cells(division, pair.found.total):
            table.add_row(f"  {visible_line(name)}", *map(Text, numbers))
    return table
