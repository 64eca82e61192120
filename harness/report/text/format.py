"""Formats of numbers and text in tables, figures and sentences."""

from __future__ import annotations

import math

from harness.report.records.groups import Spread

PREFIXES = " kMGTPEZ"
BESIDE = "*"  # marks what was measured while other jobs shared the machine


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
    """A count in a sentence: 2,000; with a prefix from 100,000 on."""
    return f"{value:,.0f}" if 100 <= value < 100_000 else human(value)


def score(spread: Spread) -> str:
    """`2.351 ± 0.004`; `2.351` for one seed."""
    if spread.std is None:
        return f"{spread.mean:.3f}"
    std = "<0.001" if 0 < spread.std < 0.0005 else f"{spread.std:.3f}"
    return f"{spread.mean:.3f} ± {std}"


def signed(value: float) -> str:
    """Three decimals with a minus sign (U+2212); never −0.000."""
    text = f"{value:.3f}"
    return "0.000" if float(text) == 0 else text.replace("-", "−")


def p_value(p: float) -> str:
    """A p-value: 0.03; < 0.001 for all that the number of draws can't resolve."""
    return "< 0.001" if p < 0.001 else f"{p:.2g}"
