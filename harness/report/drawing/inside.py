"""What `observe=basic` or `full` recorded of runs, in one figure: a column for each run."""

from __future__ import annotations

import re
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from harness.common import contained
from harness.common.errors import UsageError
from harness.common.files import atomic_write
from harness.common.rows import Row
from harness.common.text import visible_line
from harness.report.drawing.own_matplotlib import Axes, Figure, own_style
from harness.report.drawing.parts import style_axes
from harness.report.drawing.svg import ON_WHITE
from harness.runs import metrics
from harness.runs.damage import DamageError, is_finite
from harness.runs.find import run_folders

POSITIONS = re.compile(r"[0-9]{1,12}(-[0-9]{1,12})?")
MOST_VALUES = 1 << 22
Rows = list[Row]
Point = tuple[float, float]
PREFIXES = ("activations/", "updates/", "dead/", "val/loss_by_position/")
TYPICAL = -3.0  # log10 of the update-to-data ratio (Karpathy's makemore, part 3)
BLOCK = re.compile(r"(.+\.)?(\w*blocks|layers|hidden|h)\.\d+")
COLUMN_WIDTH, ROW_HEIGHT, FONT = 3.1, 2.0, 8.0  # inches, inches, points


def observed(paths: Sequence[Path]) -> dict[Path, Rows]:
    """The observed rows of each run in these folders. In a folder of several, those
    that were not observed are passed over, with a line.

    Raises UsageError for a run that was not observed, and for a folder without any that was.
    """
    found: dict[Path, Rows] = {}
    for path in paths:
        runs = sorted(run_folders(path)) or [path]
        if runs == [path]:
            found[path] = read(path)
            continue
        own = {}
        for run in runs:
            if rows := observed_rows(run):
                own[run] = rows
            else:
                print(f"{run} was not observed", file=sys.stderr)
        if not own:
            raise UsageError(f"no run in {path} was observed; train with observe=basic or full")
        found |= own
    return found


@own_style()
def write_figure(runs: Mapping[Path, Rows], out: Path) -> None:
    """Draw these runs into a PNG or SVG file. Raises RunFailure if it can't be written."""
    figure = draw([folder.absolute().name for folder in runs], list(runs.values()))
    with atomic_write(out) as file:
        figure.savefig(file, format=out.suffix[1:], dpi=110)


def read(folder: Path) -> Rows:
    """The observed rows of a run. Raises UsageError if there are none."""
    if rows := observed_rows(folder):
        return rows
    raise UsageError(f"{folder} was not observed; train with observe=basic or full")


def observed_rows(folder: Path) -> Rows:
    """Those with something that was observed. Raises UsageError for what is no run."""
    path, rows, values = folder / metrics.FILE, [], 0
    try:
        for row in metrics.intact_rows(path):
            if any(name.startswith(PREFIXES) for name in row):
                rows.append(row)
                values += len(row)
            if values > MOST_VALUES * contained.factor():
                raise contained.too_large(path, f"more than {MOST_VALUES:,} values")
    except OSError as error:
        raise UsageError(f"{folder} is not a run's folder: {error}") from error
    except DamageError as error:
        raise UsageError(f"{folder}: {error}") from error
    return rows


def series(rows: Rows, prefix: str, *suffixes: str) -> dict[str, list[Point]]:
    """(step, value) of every number whose name has the prefix and a suffix, by the name between."""
    found: dict[str, list[Point]] = {}
    for row in rows:
        for name, value in row.items():
            suffix = next((each for each in suffixes if name.endswith(each)), None)
            if name.startswith(prefix) and suffix is not None and is_finite(value):
                between = name[len(prefix) : len(name) - len(suffix)]
                found.setdefault(between, []).append((row["step"], value))
    return found


def draw(names: Sequence[str], runs: Sequence[Rows]) -> Figure:
    """A column for each run, a row for each panel."""
    panels: tuple[tuple[str, Callable[[Axes, Rows], str], bool], ...] = (
        ("update / weights, log₁₀", _updates, True),
        ("std of outputs", _output_std, True),
        ("share at rest", _inactive, True),
        ("entropy or openness", _attention, False),
        ("loss, nats per token", _positions, True),
    )
    size = (0.6 + COLUMN_WIDTH * len(runs), 0.5 + ROW_HEIGHT * len(panels))
    figure = Figure(figsize=size, facecolor=ON_WHITE.paper, layout="constrained")
    grid = figure.subplots(len(panels), len(runs), squeeze=False)
    for line, (title, panel, comparable) in zip(grid, panels, strict=True):
        for axes, rows in zip(line, runs, strict=True):
            style_axes(axes, ON_WHITE, FONT - 1)
            axes.tick_params(which="both", length=0)
            axes.set_xlabel(panel(axes, rows), fontsize=FONT, color=ON_WHITE.muted)
        if comparable:
            drawn = [axes for axes in line if axes.has_data()]
            limits = [axes.get_ylim() for axes in drawn]
            for axes in drawn:
                axes.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
        line[0].set_ylabel(title, fontsize=FONT, color=ON_WHITE.ink)
    for axes, name in zip(grid[0], names, strict=True):
        axes.set_title(
            visible_line(name), fontsize=FONT + 2, color=ON_WHITE.ink, loc="left", parse_math=False
        )
    return figure


# Each panel draws one run and returns the label of its x axis.


def _updates(axes: Axes, rows: Rows) -> str:
    lines = series(rows, "updates/", "/log10_ratio")
    # observe=full has vectors, too, which may start at zero; only matrices have a spectral norm.
    matrices = series(rows, "weights/", "/spectral_norm") or lines
    axes.axhline(TYPICAL, color=ON_WHITE.ink, lw=0.9, ls=(0, (4, 2)))
    _plot_lines(axes, {name: lines[name] for name in lines if name in matrices}, ON_WHITE.series[0])
    return "step; each matrix, bold the median, dashed −3"


def _output_std(axes: Axes, rows: Rows) -> str:
    """By block, or by layer where there are no blocks: in the first and in the last row."""
    lines = series(rows, "activations/", "/std")
    blocks = {name: lines[name] for name in lines if BLOCK.fullmatch(name)}
    lines = blocks if len(blocks) > 1 else lines
    if not lines:
        return "no layer was seen"
    for row, colour in ((0, ON_WHITE.series[1]), (-1, ON_WHITE.series[0])):
        values = [points[row][1] for points in lines.values()]
        axes.plot(range(1, 1 + len(values)), values, color=colour, marker="o", ms=3.5, lw=1.4)
    axes.set_yscale("log")
    axes.set_xlim(0.5, len(lines) + 0.5)
    axes.set_xticks(range(1, len(lines) + 1, 1 + len(lines) // 8))
    word = "block" if lines is blocks else "layer"
    return f"{word}; orange at step {rows[0]['step']}, blue last"


def _inactive(axes: Axes, rows: Rows) -> str:
    """The inactive share of each nonlinearity's outputs in the last row; and its dead units."""
    outputs = series(rows, "activations/", "/inactive", "/saturation")
    dead = series(rows, "dead/", "/share")
    for x, name in enumerate(outputs):
        axes.bar(x, outputs[name][-1][1], color=ON_WHITE.series[2], width=0.8, alpha=0.45)
        if name in dead:
            axes.bar(x, dead[name][-1][1], color=ON_WHITE.series[1], width=0.8)
    axes.set_ylim(0, 1)
    axes.set_xticks([])
    if not outputs:
        return "no nonlinearity was seen"
    return "each nonlinearity: outputs; orange: dead units" if dead else "each nonlinearity"


def _attention(axes: Axes, rows: Rows) -> str:
    """Each head's entropy; without attention, each gate's mean."""
    entropies = {
        name: points
        for name, points in series(rows, "attention/", "").items()
        if "/entropy/" in name
    }
    gates = series(rows, "gates/", "/openness")
    _plot_lines(axes, entropies or gates, ON_WHITE.series[3])
    if not entropies and not gates:
        axes.set_yticks([])
        axes.set_xticks([])
        return _not_observed(rows, "attention or gates")
    return "step; nats of each head" if entropies else "step; the mean of each gate"


def _positions(axes: Axes, rows: Rows) -> str:
    losses = series(rows, "val/loss_by_position/", "")
    last = {name: points[-1][1] for name, points in losses.items() if POSITIONS.fullmatch(name)}
    if not last:
        axes.set_yticks([])
        axes.set_xticks([])
        return _not_observed(rows, "loss by position")
    firsts = [1 + int(name.partition("-")[0]) for name in last]
    axes.plot(firsts, list(last.values()), color=ON_WHITE.series[0], marker="o", ms=3.5, lw=1.4)
    axes.set_xscale("log", base=2)
    axes.set_xticks(firsts, [name.replace("-", "–") for name in last], fontsize=FONT - 2)
    return "position in the context"


def _not_observed(rows: Rows, what: str) -> str:
    """What a panel of observe=full says without numbers: never that the model has no such thing."""
    if any(name.endswith("/spectral_norm") for row in rows for name in row):
        return f"no {what} was seen"
    return f"{what}: not observed (observe=full)"


def _plot_lines(axes: Axes, lines: dict[str, list[Point]], colour: str) -> None:
    """Each line thin, their median bold."""
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
