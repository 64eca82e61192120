"""The results of paired tests in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.statistics.differences import Pair
from harness.report.statistics.paired import LEVEL
from harness.report.text.format import p_value, signed


def sentence(pair: Pair) -> str:
    """The result of one pair's test. What qualifies all of them: `caveats`."""
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
    return f"{words} ({interval(pair)})."


def interval(pair: Pair) -> str:
    """`95% interval 0.110 to 0.146`. It is not corrected for multiple comparisons: it may exclude 0
    where the corrected p is not significant, which is then given."""
    assert pair.interval is not None  # only called for tested pairs
    span = f"{signed(pair.interval.low)} to {signed(pair.interval.high)}"
    if not pair.is_significant and pair.family > 1:
        span += f", p {p_value(pair.p)} after Holm's correction for {pair.family} pairs"
    return f"{LEVEL:.0%} interval {span}"


def evidence(pair: Pair) -> str:
    """The interval, and what it is for."""
    span = f"{interval(pair)}, for {_tested_on(pair)}"
    fewer, more = sorted(pair.seeds)
    if pair.has_one_seed:
        return f"{span}; one seed says nothing of the chance in training"
    each = f"{fewer} each" if fewer == more else f"{pair.seeds[0]} and {pair.seeds[1]}"
    return f"{span} and for new seeds ({each}, by Welch's t)"


def _tested_on(pair: Pair) -> str:
    if pair.documents is not None:
        return f"documents like these {pair.documents:,}"
    return f"text like these {pair.text_bytes:,} test bytes"


def caveats(pairs: Sequence[Pair]) -> list[str]:
    """What the sentences of these pairs are for, once for all."""
    tested = [pair for pair in pairs if pair.interval is not None]
    if not tested:
        return []
    words = f"Intervals are for {' or '.join(dict.fromkeys(map(_tested_on, tested)))}"
    several = sorted({pair.seeds for pair in tested if not pair.has_one_seed})
    if several:
        each = ", ".join(f"{one} and {other}" for one, other in several)
        words += f" and for new seeds ({each}, by Welch's t)"
    lines = [f"{words}."]
    if any(pair.has_one_seed for pair in tested):
        which = "Those of pairs in which a model has one seed say" if several else "One seed says"
        lines.append(f"{which} nothing of the chance in training.")
    return lines


def forest_axis(pairs: Sequence[Pair]) -> tuple[float, float]:
    """The ends of an axis for these tested pairs' intervals, zero included, wide enough for the
    closer half of them: a distant pair leaves it by an arrow."""
    found = sorted(
        (pair.interval for pair in pairs if pair.interval is not None),
        key=lambda each: abs(each.mean),
    )
    close = found[: (len(found) + 1) // 2]
    limit = max(max(abs(each.low), abs(each.high)) for each in close) or 1.0
    low = max(-limit, min(0.0, *(each.low for each in found)))
    high = min(limit, max(0.0, *(each.high for each in found)))
    return low, high


def headline_evidence(pair: Pair) -> str:
    """For a headline that names both groups and their difference."""
    if pair.is_significant:
        return f"Tested in pairs: {evidence(pair)}."
    return f"This order is not settled: tested in pairs, {evidence(pair)}."
