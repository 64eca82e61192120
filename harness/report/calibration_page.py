"""The page of `harness.evaluate --calibration`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.evaluation.calibration import BINS, Calibration, equal_mass_bins, equal_width_bins
from harness.evaluation.surprise import FrequencyBand, Passage
from harness.report.drawing.own_matplotlib import Figure, own_style
from harness.report.drawing.parts import new_axes
from harness.report.drawing.style import DASHES, MARKERS
from harness.report.drawing.svg import PLACEHOLDERS, Palette, inline_svg
from harness.report.html.pages import render
from harness.report.text.format import human

SIZE = (4.4, 4.1)
FULL_COLOUR = 0.99  # the quantile of tokens' nats from which on colour no longer deepens


@dataclass(frozen=True)
class PageInfo:
    """The run and the split that the page is about."""

    model: str
    data: str
    tokenizer: str
    split: str
    step: int
    precision: str
    run: str


def findings(info: PageInfo, calibration: Calibration) -> list[str]:
    """The findings in sentences."""
    observed, temperature = calibration.tokens, calibration.temperature
    error, error_after = calibration.errors(equal_width_bins)
    (before, after), unit = (
        ([score.bits_per_byte for score in calibration.scores], "bits per byte")
        if calibration.scores[0].lossless
        else ([score.nats_per_token for score in calibration.scores], "nats per token")
    )
    assert before is not None
    assert after is not None
    overconfidence = calibration.confidence()[0] - float(observed.correct.mean())
    lines = [
        f"On the {info.split} split the likeliest token is right in "
        f"{observed.correct.mean():.1%} of {len(observed.targets):,} cases; the model expects "
        f"{calibration.confidence()[0]:.1%}. "
        f"It is {'too sure of itself' if overconfidence > 0 else 'too unsure'} "
        f"by {100 * abs(overconfidence):.2g} points in the mean; the expected calibration error is "
        f"{error:.3f}."
    ]
    fitted = (
        f"Of all temperatures {temperature.value:.3f} gives the least loss on validation."
        if temperature.is_best
        else f"No temperature gives the least loss on validation: it still falls at the last that "
        f"was tried, {temperature.value:.3g}."
    )
    lines.append(
        f"{fitted} On {info.split} it takes the loss from {before:.4f} to {after:.4f} {unit}, "
        f"and the calibration error from {error:.3f} to {error_after:.3f}."
    )
    return lines


def reliability_figure(calibration: Calibration, palette: Palette) -> tuple[Figure, dict[str, str]]:
    """The reliability diagram (Guo et al. 2017, figure 1), and a tooltip for each point. Its bins
    have equal mass, so that each point is equally certain."""
    figure, axes = new_axes(palette, SIZE, right=0.15)
    axes.grid(axis="x", color=palette.grid, lw=0.8)
    axes.plot([0, 1], [0, 1], color=palette.muted, lw=1, dashes=(4, 3))
    titles, furthest = {}, 0.0
    for style, (name, bins) in enumerate(
        zip(_names(calibration), calibration.diagrams(equal_mass_bins), strict=True)
    ):
        colour, marker = palette.series[style], MARKERS[style]
        x, y = [each.confidence for each in bins], [each.accuracy for each in bins]
        furthest = max(furthest, *x, *y)
        axes.plot(x, y, color=colour, lw=1.3, dashes=DASHES[style] or (1, 0))
        for index, each in enumerate(bins):
            gid = f"point-{style}-{index}"
            axes.plot(
                [each.confidence], [each.accuracy], color=colour, marker=marker, markersize=6,
                markeredgecolor=palette.paper, gid=gid,
            )  # fmt: skip
            titles[gid] = (
                f"{name}: expects {each.confidence:.1%}, right in {each.accuracy:.1%} of "
                f"{human(each.tokens)} tokens"
            )
    limit = min(1.0, (int(10 * furthest) + 1) / 10)
    axes.set(xlim=(0, limit), ylim=(0, limit))
    axes.locator_params(nbins=5)
    axes.set_xlabel("confidence: the likeliest token's probability")
    axes.set_ylabel("accuracy: how often it came")
    return figure, titles


@own_style()
def page(
    info: PageInfo, calibration: Calibration, bands: list[FrequencyBand], surprising: list[Passage]
) -> str:
    """The whole page, as HTML."""
    figure, titles = reliability_figure(calibration, PLACEHOLDERS)
    bins = calibration.diagrams(equal_mass_bins)[0]
    points = (f"{each.confidence:.2f} {each.accuracy:.2f}" for each in bins)
    description = f"accuracy against confidence, bin by bin: {'; '.join(points)}"
    before, after = calibration.scores
    return render(
        "calibration.html.j2",
        title=f"{info.model} on {info.data}: how far it can be believed",
        findings=findings(info, calibration),
        drawing=inline_svg(figure, "reliability", description, titles),
        names=_names(calibration),
        scores={
            "nats per token": (before.nats_per_token, after.nats_per_token),
            "bits per byte": (before.bits_per_byte, after.bits_per_byte),
            "calibration error, bins of equal width": calibration.errors(equal_width_bins),
            "calibration error, bins of equal mass": calibration.errors(equal_mass_bins),
            "mean confidence": calibration.confidence(),
            "accuracy": (float(calibration.tokens.correct.mean()),) * 2,
        },
        bins=BINS,
        bands=bands,
        highest=max(band.nats_per_token or 0.0 for band in bands),
        unused=float(calibration.tokens.unused.mean(dtype=np.float64)),
        unused_nats=calibration.unused_nats_per_token(),
        passages=surprising,
        tokens=len(calibration.tokens.targets),
        full=max(1.0, float(np.quantile(calibration.tokens.nats[:, 0], FULL_COLOUR))),
        facts={
            "run": info.run,
            "weights": f"of step {info.step}",
            "tokenizer": info.tokenizer,
            "precision": info.precision,
        },
    )


def _names(calibration: Calibration) -> tuple[str, str]:
    """The names of the curves: the model as it is, and at the fitted temperature."""
    return "T = 1", f"T = {calibration.temperature.value:.3f}"
