"""The page of `harness.evaluate --calibration`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.evaluation.calibration import BINS, Calibration, by_mass, by_width
from harness.evaluation.surprise import Band, Mark, Passage
from harness.report import svg
from harness.report.format_numbers import human
from harness.report.page import document, escape, section
from harness.report.plot_parts import canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZE = (4.4, 4.1)
FULL = 0.99  # the share of tokens below which colour still grows
# One hue, so that only lightness says how much, to every eye; ink stays legible on all of it.
HEAT_LIGHT, HEAT_DARK = "#f08a24", "#a54400"


@dataclass(frozen=True)
class Subject:
    """What the page is about."""

    model: str
    data: str
    tokenizer: str
    split: str
    step: int
    precision: str
    run: str


def page(subject: Subject, found: Calibration, bands: list[Band], surprising: list[Passage]) -> str:
    """The whole page, as HTML."""
    title = f"{subject.model} on {subject.data}: how far it can be believed"
    full = max(1.0, float(np.quantile(found.observed.nats[:, 0], FULL)))
    lead, *rest = words(subject, found)
    parts = [
        f'<header><h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p>',
        *(f"<p>{escape(line)}</p>" for line in rest),
        "</header>",
        section("Reliability", _reliability(found)),
        section("Loss by how often train shows the token", _frequency(bands, found)),
        section("The most surprising passages", _surprising(surprising, found, full)),
        section("Made with", _made_with(subject)),
    ]
    return document(title, "\n".join(parts), STYLE, SCRIPT)


def words(subject: Subject, found: Calibration) -> list[str]:
    """The findings in sentences that claim no more than the numbers."""
    observed, temperature = found.observed, found.temperature
    error, error_after = found.errors(by_width)
    (before, after), unit = (
        ([score.bits_per_byte for score in found.scores], "bits per byte")
        if found.scores[0].lossless
        else ([score.nats_per_token for score in found.scores], "nats per token")
    )
    assert before is not None
    assert after is not None
    sure = found.confidence()[0] - float(observed.correct.mean())
    lines = [
        f"On the {subject.split} split the likeliest token is right in "
        f"{observed.correct.mean():.1%} of {len(observed.targets):,} cases; the model expects "
        f"{found.confidence()[0]:.1%}. It is {'too sure of itself' if sure > 0 else 'too unsure'} "
        f"by {100 * abs(sure):.2g} points in the mean; the expected calibration error is "
        f"{error:.3f}."
    ]
    fitted = (
        f"Of all temperatures {temperature.value:.3f} gives the least loss on validation."
        if temperature.is_best
        else f"No temperature gives the least loss on validation: it still falls at the last that "
        f"was tried, {temperature.value:.3g}."
    )
    lines.append(
        f"{fitted} On {subject.split} it takes the loss from {before:.4f} to {after:.4f} {unit}, "
        f"and the calibration error from {error:.3f} to {error_after:.3f}."
    )
    return lines


def reliability_figure(found: Calibration, paint: svg.Paint) -> tuple[Figure, dict[str, str]]:
    """The diagram (Guo et al. 2017, figure 1) in bins of equal mass, so that each point is equally
    certain, as far as the most confident goes; and what to say of each point."""
    figure, axes = canvas(paint, SIZE, right=0.15)
    axes.grid(axis="x", color=paint.grid, lw=0.8)
    axes.plot([0, 1], [0, 1], color=paint.muted, lw=1, dashes=(4, 3))
    titles, furthest = {}, 0.0
    names = ("T = 1", f"T = {found.temperature.value:.3f}")
    for style, (name, bins) in enumerate(zip(names, found.diagrams(by_mass), strict=True)):
        colour, marker = paint.series[style], svg.MARKERS[style]
        x, y = [each.confidence for each in bins], [each.accuracy for each in bins]
        furthest = max(furthest, *x, *y)
        axes.plot(x, y, color=colour, lw=1.3, dashes=svg.DASHES[style] or (1, 0))
        for index, each in enumerate(bins):
            gid = f"point-{style}-{index}"
            axes.plot(
                [each.confidence], [each.accuracy], color=colour, marker=marker, markersize=6,
                markeredgecolor=paint.paper, gid=gid,
            )  # fmt: skip
            titles[gid] = (
                f"{name}: expects {each.confidence:.1%}, right in {each.accuracy:.1%} of "
                f"{human(each.tokens)} tokens"
            )
    end = min(1.0, (int(10 * furthest) + 1) / 10)
    axes.set(xlim=(0, end), ylim=(0, end))
    axes.locator_params(nbins=5)
    axes.set_xlabel("confidence: the likeliest token's probability")
    axes.set_ylabel("accuracy: how often it came")
    return figure, titles


def _reliability(found: Calibration) -> str:
    figure, titles = reliability_figure(found, svg.PLACEHOLDERS)
    points = (f"{each.confidence:.2f} {each.accuracy:.2f}" for each in found.diagrams(by_mass)[0])
    description = f"accuracy against confidence, bin by bin: {'; '.join(points)}"
    drawing = svg.inline_svg(figure, "reliability", description, titles)
    legend = "".join(
        f"<li>{svg.swatch(style)}{name}</li>"
        for style, name in enumerate(("T = 1", f"T = {found.temperature.value:.3f}"))
    )
    before, after = found.scores
    rows: dict[str, tuple[float | None, float | None]] = {
        "nats per token": (before.nats_per_token, after.nats_per_token),
        "bits per byte": (before.bits_per_byte, after.bits_per_byte),
        "calibration error, bins of equal width": found.errors(by_width),
        "calibration error, bins of equal mass": found.errors(by_mass),
        "mean confidence": found.confidence(),
        "accuracy": (float(found.observed.correct.mean()),) * 2,
    }
    table = "".join(
        f'<tr><th scope="row" class="text">{name}</th>'
        + "".join(f"<td>{'–' if value is None else f'{value:.4f}'}</td>" for value in pair)
        + "</tr>"
        for name, pair in rows.items()
    )
    caption = (
        f"T = 1 is the model as it is. Each point is one of {BINS} equal parts of the tokens, from "
        "the least confident on; on the broken line it is believed as much as it may be, below it "
        "too much. The calibration error is the mean over tokens of how far their bin lies from "
        "the line (Guo et al. 2017, arXiv 1706.04599)."
    )
    return (
        f'<div class="beside"><div><ul class="legend">{legend}</ul><figure>{drawing}</figure></div>'
        f'<div><div class="scroll"><table><thead><tr><th></th><th scope="col">T = 1</th>'
        f'<th scope="col">T = {found.temperature.value:.3f}</th></tr></thead><tbody>{table}</tbody>'
        f'</table></div><p class="caption">{caption}</p></div></div>'
    )


def _frequency(bands: list[Band], found: Calibration) -> str:
    tokens = sum(band.tokens for band in bands)
    highest = max(band.nats_per_token or 0.0 for band in bands)
    rows = ""
    for band in bands:
        nats, right = band.nats_per_token, band.accuracy
        width = 0 if nats is None or not highest else 100 * nats / highest
        rows += (
            f'<tr><th scope="row" class="text">{_times(band)}</th>'
            f'<td class="more">{band.ids:,}</td>'
            f"<td>{band.tokens:,}</td><td>{band.tokens / tokens:.1%}</td>"
            f"<td>{'–' if right is None else f'{right:.1%}'}</td>"
            f"<td>{'–' if nats is None else f'{nats:.3f}'}</td>"
            f'<td class="bar more"><i style="width:{width:.0f}%"></i></td></tr>'
        )
    heads = "".join(
        f'<th scope="col"{kind}>{head}</th>'
        for head, kind in (
            ("times in train", ' class="text"'),
            ("ids", ' class="more"'),
            *((head, "") for head in ("tokens", "share", "right", "nats/token")),
            ("", ' class="more"'),
        )
    )
    caption = (
        "Every token of the split is in one row, by how often train has its id. right: how often "
        "it was the likeliest."
    )
    if bands[0].ids:
        unused = float(found.observed.unused.mean(dtype=np.float64))
        caption += (
            f" The model gives ids that train never shows {unused:.2g} of the probability in the "
            f"mean, which adds {found.unused_nats_per_token():.2g} nats to any other token's loss; "
            "<code>harness.sample --mask-unused</code> leaves such ids out."
        )
    return (
        f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'
        f'</div><p class="caption">{caption}</p>'
    )


def _times(band: Band) -> str:
    if band.most == 0:
        return "never"
    if band.most is None:
        return f"{band.least:,} or more"
    return f"{band.least:,} to {band.most:,}"


def _surprising(surprising: list[Passage], found: Calibration, full: float) -> str:
    tokens = len(found.observed.targets) + 1
    cards = ""
    for passage in surprising:
        marks = "".join(_mark(mark, full) for mark in passage.marks)
        cards += (
            f"<article><h3>{passage.nats_per_token:.2f} nats per token</h3>"
            f'<p class="caption">from token {passage.begin:,} of {tokens:,} on</p>'
            f'<pre class="marked"><span class="lead-in">{_visible(passage.lead)}</span>{marks}'
            "</pre></article>"
        )
    scale = "".join(f'<i style="--h:{share}%"></i>' for share in range(0, 101, 10))
    return (
        f'<p class="scale" aria-label="colour scale">0 <span>{scale}</span> {full:.1f} nats or more'
        '</p><p class="caption">Each token by its own surprise; rest on one, or tap it, to see '
        f"what was likelier. The grey text came before.</p>{cards}"
        '<output id="said" hidden></output>'
    )


def _mark(mark: Mark, full: float) -> str:
    heat = round(100 * min(1.0, mark.nats / full))
    title = escape("\n".join(mark.notes))
    return f'<span class="m" style="--h:{heat}%" title="{title}">{_visible(mark.text)}</span>'


def _visible(text: str) -> str:
    """Line breaks are tokens, too: shown as a sign, and broken."""
    return escape(text).replace("\n", "<b>↵</b>\n")


def _made_with(subject: Subject) -> str:
    facts = {
        "run": subject.run,
        "weights": f"of step {subject.step}",
        "tokenizer": subject.tokenizer,
        "precision": subject.precision,
    }
    rows = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    return f"<dl>{rows}</dl>"


STYLE = f"""
:root{{--heat:{HEAT_LIGHT}}}
@media(prefers-color-scheme:dark){{:root:not([data-theme=light]){{--heat:{HEAT_DARK}}}}}
:root[data-theme=dark]{{--heat:{HEAT_DARK}}}
main{{max-width:1000px;margin:0 auto;padding:2.5rem 1.25rem 5rem}}
.lead{{font-size:1.35rem;line-height:1.4;max-width:46em;margin:0 0 1rem;text-wrap:pretty}}
header p{{max-width:62em}}
.beside{{display:grid;grid-template-columns:minmax(280px,460px) minmax(300px,1fr);gap:2.5rem;
align-items:center}}
.bar{{width:30%;min-width:7rem;vertical-align:middle}}
.bar i{{display:block;height:.7rem;background:var(--series-0);border-radius:0 2px 2px 0}}
article{{margin:1.8rem 0 0}}
article h3{{margin:0}}article .caption{{margin:0}}
.marked{{max-height:none;line-height:1.75;font-size:.86rem}}
.lead-in{{color:var(--muted)}}
.marked b{{font-weight:400;color:var(--muted)}}
.m,.scale i{{background:color-mix(in srgb,var(--heat) var(--h),transparent);
print-color-adjust:exact}}
.m{{cursor:help;padding:.12em 0;border-radius:2px}}
.m:hover,.m.chosen{{outline:2px solid var(--link)}}
.scale{{display:flex;align-items:center;gap:.6rem;font-size:.85rem;margin:0}}
.scale span{{display:inline-flex;border:1px solid var(--grid)}}
.scale i{{width:1.4rem;height:.9rem}}
#said{{position:fixed;left:0;right:0;bottom:0;background:var(--tint);color:var(--ink);
border-top:1px solid var(--muted);padding:.7rem 1.25rem;white-space:pre-wrap;
overflow-wrap:anywhere;font:.85rem/1.5 var(--mono);max-height:40vh;overflow:auto}}
dl{{display:grid;grid-template-columns:auto 1fr;gap:.3rem 1.2rem;font-size:.9rem;margin:0}}
dt{{color:var(--muted)}}dd{{margin:0;overflow-wrap:anywhere}}
@media(max-width:760px){{main{{padding-top:1.4rem}}.lead{{font-size:1.12rem}}
.beside{{grid-template-columns:1fr;gap:1rem}}th,td{{padding:.4rem .45rem}}
.more{{display:none}}.beside th.text{{white-space:normal}}}}
"""

SCRIPT = """
const said = document.getElementById("said");
addEventListener("click", (event) => {
  for (const mark of document.querySelectorAll(".chosen")) mark.classList.remove("chosen");
  const mark = event.target.closest(".m");
  said.hidden = !mark;
  if (!mark) return;
  mark.classList.add("chosen");
  said.textContent = mark.title;
});
"""
