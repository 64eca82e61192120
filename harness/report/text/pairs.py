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
    once = f"With seed {pair.seeds[0]:g}, " if pair.has_one_seed else ""
    ahead = f"{pair.interval.mean:.3f} bits per byte"
    if pair.is_significant:
        return f"{once}{first} is {ahead} better than {second} ({evidence(pair)})."
    return (
        f"{once}{first} is not shown to be better than {second}: {ahead} ahead ({evidence(pair)})."
    )


def evidence(pair: Pair) -> str:
    """`95% interval 0.110 to 0.146; 3 seeds each, …`. The interval is not corrected for multiple
    comparisons: it may exclude 0 where the corrected p is not significant."""
    assert pair.interval is not None  # only called for tested pairs
    span = f"{signed(pair.interval.low)} to {signed(pair.interval.high)}"
    if not pair.is_significant and pair.family > 1:
        span += f", p {p_value(pair.p)} after Holm's correction for {pair.family} pairs"
    same = f"the same {pair.text_bytes:,} test bytes"
    if pair.has_one_seed:
        return (
            f"{LEVEL:.0%} interval {span}, for the choice of text alone; {same}; one seed"
            f"{'' if pair.has_all_seeds else ' in common'} says nothing of the chance in training"
        )
    each = "seeds each" if pair.has_all_seeds else "seeds that both have"
    return f"{LEVEL:.0%} interval {span}; {len(pair.seeds)} {each}, {same}"


def headline_evidence(pair: Pair) -> str:
    """For a headline that names both groups and their difference."""
    # If one group lacks a seed, the paired difference is not that of the means.
    found = evidence(pair)
    if pair.interval is not None and not pair.has_all_seeds:
        found = f"{signed(pair.interval.mean)}, {found}"
    if pair.is_significant:
        return f"Tested in pairs: {found}."
    return f"This order is not settled: tested in pairs, {found}."
