"""The effects of an ablation, on a terminal or as plain text."""

from __future__ import annotations

from typing import IO

from rich.text import Text

from harness.common.text import visible_line
from harness.report.statistics.effects import Ablation
from harness.report.text.effects import HEADS, cells, lines, note
from harness.report.text.terminal import empty_table, plain_or_terminal


def print_effects(found: Ablation, file: IO[str]) -> None:
    """What was done, the table, and how to read it."""
    console = plain_or_terminal(file)
    whole = not console.is_terminal
    for line in lines(found):
        console.print(visible_line(line), style="bold", soft_wrap=whole)
    table = empty_table()
    for head in HEADS:
        is_number = head in ("its gain", "interval", "p")
        table.add_column(head, justify="right" if is_number else "left", no_wrap=is_number)
    for effect in found.effects:
        table.add_row(*(Text(visible_line(cell)) for cell in cells(effect)))
    console.print(table)
    console.print(note(found), style="dim", soft_wrap=whole)
