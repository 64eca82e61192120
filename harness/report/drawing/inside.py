"""What was seen inside runs (`observe=basic` or `full`), a column each, in one figure."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.common.errors import RunFailure, UsageError
from harness.report.drawing.parts import plain_axes
from harness.report.drawing.svg import ON_WHITE

Rows = list[dict[str, Any]]
Point = tuple[float, float]
PREFIXES = ("activations/", "updates/", "dead/", "val/loss_by_position/")
USUAL = -3.0  # of the update-to-data ratio (Karpathy's makemore, part 3)
BLOCK = re.compile(r"(.+\.)?(\w*blocks|layers|hidden|h)\.\d+")
COLUMN, ROW, FONT = 3.1, 2.0, 8.0


def write_figure(folders: Sequence[Path], out: Path) -> None:
    """Draws these runs into a PNG or SVG file.

    Raises UsageError for a run in which nothing was seen, RunFailure if the file can't be written.
    """
    seen = [read(folder) for folder in folders]
    figure = draw([folder.absolute().name for folder in folders], seen)
    try:
        figure.savefig(out, dpi=110)
    except OSError as error:
        raise RunFailure(f"--out {out} can't be written: {error.strerror}") from error


def read(folder: Path) -> Rows:
    """The rows of a run in which something was seen. Raises UsageError if there are none."""
    path, rows = folder / "metrics.jsonl", []
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                # Most rows have nothing of it, and a row that was watched is long.
                if line.endswith("\n") and any(f'"{prefix}' in line for prefix in PREFIXES):
                    rows.append(json.loads(line))
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder} is not a run's folder: {path.name}: {error}") from error
    if not rows:
        raise UsageError(f"{folder}: nothing was seen of it; train with observe=basic or full")
    return rows


def series(rows: Rows, prefix: str, *suffixes: str) -> dict[str, list[Point]]:
    """(step, value) of every number with such a name, by what lies between."""
    found: dict[str, list[Point]] = {}
    for row in rows:
        for name, value in row.items():
            suffix = next((each for each in suffixes if name.endswith(each)), None)
            if name.startswith(prefix) and suffix is not None and isinstance(value, (int, float)):
                place = name[len(prefix) : len(name) - len(suffix)]
                found.setdefault(place, []).append((row["step"], value))
    return found


def draw(names: Sequence[str], runs: Sequence[Rows]) -> Figure:
    """A column for every run, a row for every question."""
    panels: tuple[tuple[str, Callable[[Axes, Rows], str], bool], ...] = (
        ("update / weights, log₁₀", _updates, True),
        ("std of outputs", _spread, True),
        ("share at rest", _rest, True),
        ("entropy or openness", _attention, False),
        ("loss, nats per token", _positions, True),
    )
    size = (0.6 + COLUMN * len(runs), 0.5 + ROW * len(panels))
    figure = Figure(figsize=size, facecolor=ON_WHITE.paper, layout="constrained")
    grid = figure.subplots(len(panels), len(runs), squeeze=False)
    for line, (title, panel, comparable) in zip(grid, panels, strict=True):
        for axes, rows in zip(line, runs, strict=True):
            plain_axes(axes, ON_WHITE, FONT - 1)
            axes.tick_params(which="both", length=0)
            axes.set_xlabel(panel(axes, rows), fontsize=FONT, color=ON_WHITE.muted)
        if comparable:
            drawn = [axes for axes in line if axes.has_data()]
            limits = [axes.get_ylim() for axes in drawn]
            for axes in drawn:
                axes.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
        line[0].set_ylabel(title, fontsize=FONT, color=ON_WHITE.ink)
    for axes, name in zip(grid[0], names, strict=True):
        axes.set_title(name, fontsize=FONT + 2, color=ON_WHITE.ink, loc="left")
    return figure


# Each panel draws one run, and returns what is to be read under it.


def _updates(axes: Axes, rows: Rows) -> str:
    lines = series(rows, "updates/", "/log10_ratio")
    # A full watch has vectors, too, which may begin at zero; a spectral norm tells the matrices.
    matrices = series(rows, "weights/", "/spectral_norm") or lines
    axes.axhline(USUAL, color=ON_WHITE.ink, lw=0.9, ls=(0, (4, 2)))
    _bundle(axes, {name: lines[name] for name in lines if name in matrices}, ON_WHITE.series[0])
    return "step; each matrix, bold the median, dashed −3"


def _spread(axes: Axes, rows: Rows) -> str:
    """Block after block, or layer after layer where there are no blocks, first and last look."""
    lines = series(rows, "activations/", "/std")
    blocks = {name: lines[name] for name in lines if BLOCK.fullmatch(name)}
    lines = blocks if len(blocks) > 1 else lines
    if not lines:
        return "no layer was seen"
    for look, colour in ((0, ON_WHITE.series[1]), (-1, ON_WHITE.series[0])):
        values = [points[look][1] for points in lines.values()]
        axes.plot(range(1, 1 + len(values)), values, color=colour, marker="o", ms=3.5, lw=1.4)
    axes.set_yscale("log")
    axes.set_xlim(0.5, len(lines) + 0.5)
    axes.set_xticks(range(1, len(lines) + 1, 1 + len(lines) // 8))
    word = "block" if lines is blocks else "layer"
    return f"{word}; orange at step {rows[0]['step']}, blue last"


def _rest(axes: Axes, rows: Rows) -> str:
    """Of each nonlinearity's outputs, at the last look; and which units were dead all along."""
    outputs = series(rows, "activations/", "/inactive", "/saturation")
    dead = series(rows, "dead/", "/share")
    for place, name in enumerate(outputs):
        axes.bar(place, outputs[name][-1][1], color=ON_WHITE.series[2], width=0.8, alpha=0.45)
        if name in dead:
            axes.bar(place, dead[name][-1][1], color=ON_WHITE.series[1], width=0.8)
    axes.set_ylim(0, 1)
    axes.set_xticks([])
    if not outputs:
        return "no nonlinearity"
    return "each nonlinearity: outputs; orange: dead units" if dead else "each nonlinearity"


def _attention(axes: Axes, rows: Rows) -> str:
    """Each head's entropy; without attention, each gate's mean."""
    entropies = {
        name: points
        for name, points in series(rows, "attention/", "").items()
        if "/entropy/" in name
    }
    gates = series(rows, "gates/", "/openness")
    _bundle(axes, entropies or gates, ON_WHITE.series[3])
    if not entropies and not gates:
        axes.set_yticks([])
        axes.set_xticks([])
        return "neither attention nor gates"
    return "step; nats of each head" if entropies else "step; the mean of each gate"


def _positions(axes: Axes, rows: Rows) -> str:
    losses = series(rows, "val/loss_by_position/", "")
    last = {name: points[-1][1] for name, points in losses.items()}
    if last:
        firsts = [1 + int(name.partition("-")[0]) for name in last]
        axes.plot(firsts, list(last.values()), color=ON_WHITE.series[0], marker="o", ms=3.5, lw=1.4)
        axes.set_xscale("log", base=2)
        axes.set_xticks(firsts, [name.replace("-", "–") for name in last], fontsize=FONT - 2)
    return "position in the context"


def _bundle(axes: Axes, lines: dict[str, list[Point]], colour: str) -> None:
    """Each line thin, and where there are several the median of all bold."""
    for points in lines.values():
        axes.plot(*zip(*points, strict=True), color=colour, lw=0.7, alpha=0.55)
    if lines:
        axes.plot(*zip(*_median(lines), strict=True), color=colour, lw=2.0)


def _median(lines: dict[str, list[Point]]) -> Iterator[Point]:
    by_step: dict[float, list[float]] = {}
    for points in lines.values():
        for step, value in points:
            by_step.setdefault(step, []).append(value)
    for step, values in sorted(by_step.items()):
        yield step, statistics.median(values)
