"""A comparison on a terminal, or as plain text in a file or a pipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import IO

from rich import box
from rich.table import Table
from rich.text import Text

from harness.common.console import Console
from harness.common.text import visible_line
from harness.report.records.groups import Group
from harness.report.statistics.differences import adjacent_pairs
from harness.report.statistics.floor import references
from harness.report.statistics.ranking import Comparison
from harness.report.statistics.skills import Grid, Model, grid
from harness.report.statistics.texts import TextTable, text_table
from harness.report.text import ladder, skills, texts
from harness.report.text.columns import (
    LOSSY_NOTE,
    MEANS_NOTE,
    REFERENCES_NOTE,
    Column,
    columns,
    ranks,
    reference_cells,
)
from harness.report.text.pairs import caveats, sentence
from harness.report.text.verdict import (
    best_by_tokenizer,
    copied_lines,
    equality_lines,
    evaluation_lines,
    floor_lines,
    headlines,
    lossy_examples,
    notes,
    plan_lines,
)

# The least width of output to a file or a pipe.
PLAIN_WIDTH = 160
SKILL, GAP = "0.984 (0.966 to 0.993)", 3  # a cell, and what is between two


def print_comparison(comparison: Comparison, file: IO[str]) -> None:
    """Print the ranking, what can't be ranked, and every run that is not counted, with its reason.

    Not on a terminal: plain text without colours, every column whole.
    """
    console = plain_or_terminal(file)
    # In a file or a pipe each sentence stays on one line, so that grep finds it.
    whole = not console.is_terminal
    for line in map(str, headlines(comparison)):
        console.print(visible_line(line), style="bold", soft_wrap=whole)
    for line in notes(comparison):
        console.print(f"! {visible_line(line)}", style="yellow", soft_wrap=whole)
    if comparison.ranked:
        _print_groups(console, comparison.ranked, lossy=False)
        console.print(MEANS_NOTE, style="dim")
        if references(comparison.ranked):
            console.print(REFERENCES_NOTE, style="dim", soft_wrap=whole)
        under = copied_lines, equality_lines, evaluation_lines, floor_lines, best_by_tokenizer
        for line in (line for lines in under for line in lines(comparison)):
            console.print(visible_line(line), soft_wrap=whole)
        for line in ladder.lines(comparison):
            console.print(visible_line(line), soft_wrap=whole)
        adjacent = adjacent_pairs(comparison.pairs, comparison.ranked)
        for line in (*map(sentence, adjacent), *caveats(adjacent)):
            console.print(visible_line(line), soft_wrap=whole)
        for line in plan_lines(comparison):
            console.print(visible_line(line), soft_wrap=whole)
    if found := grid(comparison):
        console.print("\nSkills", style="bold")
        for part in _skills_tables(found, console.width):
            console.print(part)
        console.print(skills.NOTE, style="dim", soft_wrap=whole)
    if table := text_table(comparison):
        console.print("\nText by text", style="bold")
        console.print(_texts_table(table))
        console.print(texts.NOTE, style="dim", soft_wrap=whole)
    if comparison.lossy:
        console.print(f"\nNot ranked ({LOSSY_NOTE})", style="bold")
        _print_groups(console, comparison.lossy, lossy=True)
        for line in lossy_examples(comparison):
            console.print(visible_line(line), style="dim", soft_wrap=whole)
    if comparison.uncounted:
        console.print("\nNot counted", style="bold")
        console.print(_uncounted_table(comparison))


def plain_or_terminal(file: IO[str]) -> Console:
    """Colours and the terminal's width for a terminal, neither for a file or a pipe."""
    console = Console(file=file, highlight=False, markup=False, emoji=False)
    if console.is_terminal and file.isatty():
        return console
    return Console(
        file=file, highlight=False, markup=False, emoji=False,
        width=PLAIN_WIDTH, force_terminal=False, color_system=None, legacy_windows=False,
    )  # fmt: skip


def _print_groups(console: Console, groups: Sequence[Group], *, lossy: bool) -> None:
    """One table; on a narrow terminal several, each starting with the names."""

    def width(shown: Sequence[Column]) -> int:
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


def _table(groups: Sequence[Group], shown: Sequence[Column], lossy: bool) -> Table:
    table = empty_table()
    if not lossy:
        table.add_column("#", justify="right", no_wrap=True)
    for column in shown:
        table.add_column(
            f"{column.header}\n{column.unit}",
            justify="left" if column.is_text else "right",
            no_wrap=not column.is_text,
            overflow="fold",
        )
    for place, group in zip(ranks(groups), groups, strict=True):
        cells = [Text(visible_line(column.read(group)[0])) for column in shown]
        table.add_row(*([] if lossy else [str(place)]), *cells)
    for reference in [] if lossy else references(groups):
        cells = [Text(visible_line(cell)) for cell in reference_cells(reference, shown)]
        table.add_row("–", *cells)
    return table


def _skills_tables(found: Grid, width: int) -> list[Table]:
    """As many models side by side as there is room for."""
    tasks = [visible_line(skills.called(task)) for task in found.tasks]
    room = width - max(map(len, tasks)) - len("chance") - 2 * GAP
    parts, used = [dict[str, Model]()], 0
    for name, model in found.models.items():
        wide = max(len(SKILL), len(name)) + GAP
        if parts[-1] and used + wide > room:
            parts.append({})
            used = 0
        parts[-1][name] = model
        used += wide
    return [_skills_table(found, tasks, models) for models in parts]


def _skills_table(found: Grid, tasks: Sequence[str], models: Mapping[str, Model]) -> Table:
    table = empty_table()
    table.add_column("task", overflow="fold")
    table.add_column("chance", justify="right", no_wrap=True)
    for name, (kept, _) in models.items():
        head = f"{visible_line(name)}\n{skills.state(kept)}"
        table.add_column(head, justify="right", overflow="fold")
    for task, name in zip(found.tasks, tasks, strict=True):
        shown = [skills.cell(cells.get(task)) for _, cells in models.values()]
        table.add_row(Text(name), skills.chance(task), *shown)
    return table


def _texts_table(found: TextTable) -> Table:
    table = empty_table()
    table.add_column("model", overflow="fold")
    for name, part in found.names.values():
        table.add_column(f"{visible_line(name)}\n{part}", justify="right", no_wrap=True)
    for group, places in found.rows:
        cells = [texts.cell(places.get(text)) for text in found.names]
        table.add_row(Text(visible_line(group.label)), *cells)
    return table


def _uncounted_table(comparison: Comparison) -> Table:
    table = empty_table()
    table.add_column("run", overflow="fold")
    table.add_column("status", no_wrap=True)
    table.add_column("why", overflow="fold")
    for run, reason in comparison.uncounted:
        name = visible_line(comparison.names[run.folder])
        table.add_row(Text(name), Text(visible_line(run.status)), Text(visible_line(reason)))
    return table


def empty_table() -> Table:
    """The look of all tables."""
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
