"""The losses of a diagnosis in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.common.errors import UsageError
from harness.common.files import atomic_write
from harness.report.drawing.own_matplotlib import own_style
from harness.report.drawing.parts import new_axes, set_ticks
from harness.report.drawing.svg import ON_WHITE

SIZE, WIDTH = (7.0, 4.0), 1.8


@own_style()
def write_losses(
    out: Path,
    x: Sequence[float],
    losses: Sequence[float],
    x_title: str,
    *,
    log: bool = False,
    marked: Sequence[float] = (),
) -> None:
    """Draw finite losses over x into a PNG or SVG file. log: the x axis. marked: values of x that
    get a vertical line.

    Raises UsageError for another ending, RunFailure if the file can't be written.
    """
    if out.suffix not in (".png", ".svg"):
        raise UsageError(f"--out {out} should end in .png or .svg")
    figure, axes = new_axes(ON_WHITE, SIZE, right=0.2)
    axes.plot(x, losses, color=ON_WHITE.series[0], lw=WIDTH)
    for place in marked:
        axes.axvline(place, color=ON_WHITE.muted, lw=0.9, ls=(0, (4, 2)))
    if log:
        axes.set_xscale("log")
    axes.set_xlabel(x_title)
    axes.set_ylabel("training loss, nats per token")
    axes.margins(x=0.01)
    set_ticks(axes, log)
    with atomic_write(out) as file:
        figure.savefig(file, format=out.suffix[1:], dpi=160)
