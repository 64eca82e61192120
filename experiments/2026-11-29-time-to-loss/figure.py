"""Validation loss over seconds of training of each recipe, with the counted floors as lines.

python experiments/2026-11-29-time-to-loss/figure.py FOLDER OUT.svg|OUT.png

FOLDER: of recipes.sh, FOLDER/NAME-SEED for each run. A line is the mean over seeds, its band goes
from the lowest to the highest.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from harness.report.drawing import parts
from harness.report.drawing.curves import Series, as_series
from harness.report.drawing.own_matplotlib import own_style
from harness.report.drawing.svg import ON_WHITE, draw_svg
from harness.runs import metrics

FLOORS = {"counted 7-grams": 1.4872, "counted 5-grams": 1.5239}
SIZE = (9.0, 5.2)
LOWEST, HIGHEST = 1.40, 2.55


def series_of(folder: Path) -> list[Series]:
    """Best at the end first."""
    names = sorted({path.name.rpartition("-")[0] for path in folder.glob("*-[0-9]")})
    found = []
    for style, name in enumerate(names):
        runs = [curve(path) for path in sorted(folder.glob(f"{name}-[0-9]"))]
        points = []
        for at in zip(*runs, strict=True):
            nats = [loss for _, loss in at]
            seconds = sum(time for time, _ in at) / len(at)
            points.append((seconds, sum(nats) / len(nats), min(nats), max(nats)))
        found.append(as_series(name, style, points))
    return sorted(found, key=lambda line: line.y[-1])


def curve(run: Path) -> list[tuple[float, float]]:
    """Seconds of training and validation nats per character."""
    rows = metrics.read(run / metrics.FILE).evaluations
    return [(row["seconds"], row["val/nats_per_token"]) for row in rows if row["seconds"] > 0]


@own_style()
def draw(series: Sequence[Series], out: Path) -> None:
    names = {line.style: line.label for line in series}
    figure, axes = parts.new_axes(ON_WHITE, SIZE, right=parts.label_width(names.values()))
    axes.set_xlabel("seconds of training on two cores")
    axes.set_ylabel("validation loss, nats per character")
    axes.set_xscale("log")
    axes.set_ylim(LOWEST, HIGHEST)
    for line in series:
        own = parts.line_kwargs(line.style, ON_WHITE) | {"marker": ""}
        axes.fill_between(line.x, line.low, line.high, color=own["color"], alpha=0.13, lw=0)
        axes.plot(line.x, line.y, **own)
    axes.margins(x=0.01)
    for name, nats in FLOORS.items():
        axes.axhline(nats, color=ON_WHITE.ink, lw=1, ls=(0, (4, 2)))
        axes.annotate(
            f"{name} {nats:.3f}", (0, nats), (3, 3), xycoords=("axes fraction", "data"),
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
