"""What a target costs, on a terminal or as plain text."""

from __future__ import annotations

from typing import IO

from rich.text import Text

from harness.common.text import visible_line
from harness.report.statistics.targets import TargetCosts
from harness.report.text.targets import CURRENCIES, NOTE, cell, evaluations, lines, seeds
from harness.report.text.terminal import empty_table, plain_or_terminal


def print_costs(found: TargetCosts, file: IO[str]) -> None:
    """A line for each model, and who gets there first."""
    console = plain_or_terminal(file)
    whole = not console.is_terminal
    said = list(map(visible_line, lines(found)))
    console.print(f"\n{said[0]}", style="bold", soft_wrap=whole)
    table = empty_table()
    table.add_column("model", overflow="fold")
    for head in ("seeds", "evaluations", *CURRENCIES.values()):
        table.add_column(head, justify="right", no_wrap=True)
    for own in found.groups:
        cells = (seeds(own), evaluations(own), *(cell(own, each) for each in CURRENCIES))
        table.add_row(Text(visible_line(own.group.label)), *map(Text, cells))
    console.print(table)
    for line in said[1:]:
        console.print(line, soft_wrap=whole)
    console.print(NOTE, style="dim", soft_wrap=whole)
