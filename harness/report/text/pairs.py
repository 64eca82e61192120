"""The results of paired tests in sentences."""

from __future__ import annotations

from harness.report.statistics.differences import Pair
from harness.report.statistics.paired import LEVEL
from harness.report.text.format import p_value, signed


def sentence(pair: Pair) -> str:
    """The result of one pair's test."""
    first, second = pair.better.label, pair.worse.label
    if pair.interval is None:
        return f"{first} and {second} were not tested in pairs: {pair.untested}."
    ahead = f"{pair.interval.mean:.3f} bits per byte"
    if not pair.is_significant:
        words = f"{first} is not shown to be better than {second}: {ahead} ahead"
    elif pair.has_one_seed:
        words = f"As trained here, {first} is {ahead} better than {second}"
    else:
        words = f"{first} is {ahead} better than {second}"
    return f"{words} ({evidence(pair)})."


def evidence(pair: Pair) -> str:
    """`95% interval 0.110 to 0.146, for text like these … bytes and for new seeds (3 each, by
    Welch's t)`. The interval is not corrected for multiple comparisons: it may exclude 0 where the
    corrected p is not significant."""
    assert pair.interval is not None  # only called for tested pairs
    span = f"{signed(pair.interval.low)} to {signed(pair.interval.high)}"
    if not pair.is_significant and pair.family > 1:
        span += f", p {p_value(pair.p)} after Holm's correction for {pair.family} pairs"
    if pair.documents is not None:
        span += f", for documents like these {pair.documents:,}"
    else:
        span += f", for text like these {pair.text_bytes:,} test bytes"
    fewer, more = sorted(pair.seeds)
    if pair.has_one_seed:
        return f"{LEVEL:.0%} interval {span}; one seed says nothing of the chance in training"
    each = f"{fewer} each" if fewer == more else f"{pair.seeds[0]} and {pair.seeds[1]}"
    return f"{LEVEL:.0%} interval {span} and for new seeds ({each}, by Welch's t)"


def headline_evidence(pair: Pair) -> str:
    """For a headline that names both groups and their difference."""
    if pair.is_significant:
        return f"Tested in pairs: {evidence(pair)}."
    return f"This order is not settled: tested in pairs, {evidence(pair)}."
