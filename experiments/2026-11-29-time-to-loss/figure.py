"""Validation loss over seconds of training of each recipe, with the counted floors as lines.

python experiments/2026-11-29-time-to-loss/figure.py FOLDER OUT.svg|OUT.png

FOLDER: of recipes.sh, FOLDER/NAME-SEED for each run. The lines are seed 0's; a bar at a
line's end goes from the lowest to the highest seed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness.report.drawing import parts
from harness.report.drawing.curves import Series, as_series
from harness.report.drawing.own_matplotlib import own_style
from harness.report.drawing.svg import ON_WHITE, draw_svg
from harness.runs import metrics

# Nats, and where the name stands, in points above the line.
FLOORS = {"counted 7-grams": (1.4872, -11), "counted 5-grams": (1.5239, 4)}
SIZE = (9.0, 5.0)
LOWEST, HIGHEST = 1.40, 2.30
FASTEST = 0.1


def series_of(folder: Path) -> list[Series]:
    """Best at the end first; `low` and `high` at the end are those of all seeds."""
    found = []
    for first in folder.glob("*-0"):
        name = first.name.removesuffix("-0")
        points = [(seconds, nats, nats, nats) for seconds, nats in curve(first)]
        ends = [curve(run)[-1][1] for run in folder.glob(f"{name}-[0-9]")]
        seconds, nats, *_ = points[-1]
        points[-1] = (seconds, nats, min(ends), max(ends))
        found.append((name.replace("_", " "), points))
    found.sort(key=lambda each: each[1][-1][1])
    return [as_series(name, style, points) for style, (name, points) in enumerate(found)]


def curve(run: Path) -> list[tuple[float, float]]:
    """Seconds of training and validation nats per character. Seconds: steps times what a step takes
    in the fastest tenth of them, since other work ran beside."""
    rows = list(metrics.intact_rows(run / metrics.FILE))
    step = np.quantile(np.diff([row["seconds"] for row in rows]), FASTEST)
    name = "val/nats_per_token"
    return [(float(row["step"] * step), row[name]) for row in rows if name in row]


@own_style()
def draw(series: Sequence[Series], out: Path) -> None:
    names = {line.style: line.label for line in series}
    figure, axes = parts.new_axes(ON_WHITE, SIZE, right=parts.label_width(names.values()))
    axes.set_xlabel("seconds of training, one thread")
    axes.set_ylabel("validation loss, nats per character")
    axes.set_xscale("log")
    axes.set_ylim(LOWEST, HIGHEST)
    for line in series:
        own = parts.line_kwargs(line.style, ON_WHITE)
        axes.plot(line.x, line.y, **(own | {"marker": ""}))
        axes.plot(
            [line.x[-1]] * 2, [line.low[-1], line.high[-1]], color=own["color"], lw=5, alpha=0.35
        )
        axes.plot(line.x[-1], line.y[-1], **own)
    axes.margins(x=0.02)
    for name, (nats, shift) in FLOORS.items():
        axes.axhline(nats, color=ON_WHITE.ink, lw=1, ls=(0, (4, 2)))
        axes.annotate(
            f"{name} {nats:.3f}", (0, nats), (3, shift), xycoords=("axes fraction", "data"),
            textcoords="offset points", fontsize=parts.FONT, color=ON_WHITE.ink,
        )  # fmt: skip
    parts.set_ticks(axes, log=True)
    parts.label_ends(axes, series, names, set(), ON_WHITE)
    if out.suffix == ".svg":
        out.write_text(draw_svg(figure))
    else:
        figure.savefig(out, dpi=160, metadata={"Software": None})


if __name__ == "__main__":
    draw(series_of(Path(sys.argv[1])), Path(sys.argv[2]))
