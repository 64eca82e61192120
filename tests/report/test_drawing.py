"""Figures on a page: what a run is called is drawn as it is, and axes have round numbers."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from harness.report.drawing.parts import log_ticks, shorten
from harness.report.drawing.svg import PLACEHOLDERS, config_link, inline_svg


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("lr=0.00012345", "lr=0.00012345"),
        (f"{PLACEHOLDERS.ink} {PLACEHOLDERS.series[3]}", f"{PLACEHOLDERS.ink} #010203"),
        ('url(#x) id="x" href="#y" config:3', 'url(#x) id="x" href="#y" config:3'),
        ("<script>&amp;</script>", "<script>&amp;</script>"),
        ("\x1b[31m \udc80 \x00", "\ufffd[31m \ufffd \ufffd"),
        (r"back\g<0>slash $x^2$", r"back\g<0>slash $x^2$"),
    ],
)
@pytest.mark.filterwarnings("ignore:Glyph")
def test_a_name_is_drawn_as_it_is(name: str, shown: str) -> None:
    """Numbers, colours and links are rewritten for the page where the drawing has them, and not in
    what a run says."""
    figure = Figure()
    axes = figure.add_axes((0, 0, 1, 1))
    axes.plot([0, 1], [0.123456789, 1], color=PLACEHOLDERS.ink, gid="curve", url=config_link(3))
    axes.text(0, 0, shorten(name), parse_math=False)
    drawn = inline_svg(figure, "here", name, {"curve": name})
    assert not set("\x1b\x00\udc80") & set(drawn)
    svg = ElementTree.fromstring(drawn)
    assert svg.get("aria-label") == shown
    assert shown in [each.text for each in svg.iter("text")]
    assert [each.text for each in svg.iter("title")] == [shown]
    (curve,) = (each for each in svg.iter("g") if each.get("id") == "here-curve")
    (path,) = curve.iter("path")
    assert "stroke: var(--ink)" in path.get("style", "")
    assert "#config-3" in [each.get("href") for each in svg.iter("a")]


@given(st.floats(1e-3, 1e15), st.floats(1.2, 1e6))
def test_ticks_of_a_log_axis_are_round_and_inside(low: float, ratio: float) -> None:
    ticks = log_ticks(low, low * ratio)
    assert 1 <= len(ticks) <= 7
    assert all(low <= tick <= low * ratio for tick in ticks)
    assert all(float(f"{tick:.2g}") == tick for tick in ticks)


def test_a_short_log_axis_beside_a_zero_has_two_ticks() -> None:
    """2.1 T to 5 T, with room for a zero at the left: one tick would be no scale."""
    assert log_ticks(2.1e12, 5e12, 6.2) == [3e12, 4e12]
