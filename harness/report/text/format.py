"""How numbers and texts are written in tables, figures and sentences."""

from __future__ import annotations

import math

from harness.report.records.groups import Spread

PREFIXES = " kMGTPEZ"


def human(number: float) -> str:
    """Three significant digits with an SI prefix: 1.53 M, 892 k, 4.1 G is written 4.10 G."""
    if number == 0:
        return "0"
    if abs(number) < 999.5:
        return f"{number:.0f}" if float(number).is_integer() else f"{number:.3g}"
    power = 0
    while abs(number) >= 999.5 and power < len(PREFIXES) - 1:
        number, power = number / 1000, power + 1
    digits = 2 - math.floor(math.log10(abs(float(f"{number:.3g}"))))
    return f"{number:.{max(0, digits)}f} {PREFIXES[power]}"


def seconds(value: float) -> str:
    """Seconds with at least three digits, never with a prefix: 3.21, 45.6, 1,234."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def amount(value: float) -> str:
    """A count in a sentence: 2,000 as it is, larger ones with a prefix."""
    return f"{value:,.0f}" if 100 <= value < 100_000 else human(value)


def score(spread: Spread) -> str:
    """`2.351 ± 0.004`; without ± for one seed, of which no spread is known."""
    if spread.std is None:
        return f"{spread.mean:.3f}"
    std = "<0.001" if 0 < spread.std < 0.0005 else f"{spread.std:.3f}"
    return f"{spread.mean:.3f} ± {std}"


def signed(value: float) -> str:
    """Three decimals, with a real minus sign; never −0.000."""
    text = f"{value:.3f}"
    return "0.000" if float(text) == 0 else text.replace("-", "−")


def chance(p: float) -> str:
    """A p-value: 0.03, 0.0004; below what the draws can tell apart: < 0.001."""
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def visible(text: str) -> str:
    """The text with each character that can't be seen replaced by \N{REPLACEMENT CHARACTER}: it
    could move a terminal's cursor, or be no valid HTML. Line breaks and tabs stay."""
    return "".join(
        character if character.isprintable() or character in "\n\t" else "\N{REPLACEMENT CHARACTER}"
        for character in text
    )


def one_line(text: str) -> str:
    """The text on one line, without characters that can't be seen."""
    return visible(" ".join(text.split()))
