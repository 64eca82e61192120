"""Colours that can be read, and told apart by the colour-blind."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.report.drawing.style import DARK, DARK_SERIES, DASHES, LIGHT, LIGHT_SERIES, MARKERS
from harness.report.html.pages import style_sheet

THEMES = [pytest.param(LIGHT, LIGHT_SERIES, id="light"), pytest.param(DARK, DARK_SERIES, id="dark")]
# What is left of linear RGB (Machado, Oliveira & Fernandes 2009, "A Physiologically-based Model for
# Simulation of Color Vision Deficiency", severity 1).
SEEN_BY = {
    "all": np.eye(3),
    "deuteranopes": [
        [0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "protanopes": [
        [0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "tritanopes": [
        [1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}  # fmt: skip


def linear(colour: str) -> NDArray:
    values = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(first: str, second: str) -> float:
    """WCAG 2.2's contrast ratio."""
    dark, light = sorted(linear(colour) @ [0.2126, 0.7152, 0.0722] for colour in (first, second))
    return (light + 0.05) / (dark + 0.05)


def oklab(rgb: NDArray) -> NDArray:
    """Ottosson 2020: distances are roughly those that are seen."""
    cones = [
        [0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]  # fmt: skip
    mixed = [
        [0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]  # fmt: skip
    return np.array(mixed) @ np.cbrt(np.array(cones) @ rgb.clip(0, 1))


def closest(colours: tuple[str, ...], matrix: NDArray) -> float:
    seen = [oklab(np.array(matrix) @ linear(colour)) for colour in colours]
    return min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2))


def test_the_measures_are_the_standards() -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    assert oklab(linear("#ffffff")) == pytest.approx([1, 0, 0], abs=1e-6)


@pytest.mark.parametrize(("colours", "series"), THEMES)
def test_text_and_lines_have_contrast(colours: dict[str, str], series: tuple[str, ...]) -> None:
    for paper in ("paper", "tint"):
        for name in ("ink", "muted", "link", "warn"):
            assert contrast(colours[name], colours[paper]) >= 4.5, (name, paper)
    assert contrast(colours["warn"], colours["warn-paper"]) >= 4.5
    for colour in series:
        assert contrast(colour, colours["paper"]) >= 3, colour


@pytest.mark.parametrize(("colours", "series"), THEMES)
@pytest.mark.parametrize("eyes", SEEN_BY)
def test_five_models_are_told_apart_by_all_eyes(
    eyes: str, colours: dict[str, str], series: tuple[str, ...]
) -> None:
    # 0.02 in Oklab is just noticeable. Tritanopia is a thousand times rarer than the others.
    least = 0.045 if eyes == "tritanopes" else 0.12
    assert closest(series[:5], SEEN_BY[eyes]) >= least


def test_a_red_and_a_green_of_one_lightness_would_fail() -> None:
    assert closest(("#d55e00", "#8a8a00"), np.array(SEEN_BY["deuteranopes"])) < 0.12


def test_no_two_of_twelve_models_look_alike_without_colour() -> None:
    looks = [(DASHES[n % len(DASHES)], MARKERS[n % len(MARKERS)]) for n in range(12)]
    assert len(set(looks)) == 12


def test_dark_and_light_follow_the_system_and_can_be_chosen() -> None:
    sheet = style_sheet()
    for name in LIGHT:
        assert f"--{name}:{LIGHT[name]};" in sheet
        assert sheet.count(f"--{name}:{DARK[name]};") == 2
    assert "prefers-color-scheme:dark" in sheet
    assert "prefers-reduced-motion" in sheet
