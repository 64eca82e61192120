"""What the test of two groups shows, in words."""

from __future__ import annotations

from harness.report.statistics.differences import Pair
from harness.report.statistics.paired import LEVEL
from harness.report.text.format import chance, signed


def sentence(pair: Pair) -> str:
    """What the test of one pair shows, and no more."""
    first, second = pair.better.label, pair.worse.label
    if pair.interval is None:
        return f"{first} and {second} were not tested in pairs: {pair.untested}."
    once = f"With seed {pair.seeds[0]:g}, " if pair.has_one_seed else ""
    ahead = f"{pair.interval.mean:.3f} bits per byte"
    if pair.settled:
        return f"{once}{first} is {ahead} better than {second} ({evidence(pair)})."
    return (
        f"{once}{first} is not shown to be better than {second}: {ahead} ahead ({evidence(pair)})."
    )


def evidence(pair: Pair) -> str:
    """The interval, what spoils it, and what it is over: `95% interval 0.110 to 0.146; 3 seeds …`.

    An interval is that of its pair by itself: where it leaves out 0 and the pair is not settled, it
    is the number of pairs looked at that makes the difference.
    """
    assert pair.interval is not None  # asked for of tested pairs alone
    span = f"{signed(pair.interval.low)} to {signed(pair.interval.high)}"
    if not pair.settled and pair.family > 1:
        span += f", p {chance(pair.p)} after Holm's correction for {pair.family} pairs"
    same = f"the same {pair.text_bytes:,} test bytes"
    if pair.has_one_seed:
        return (
            f"{LEVEL:.0%} interval {span}, for the choice of text alone; {same}; one seed"
            f"{'' if pair.has_all_seeds else ' in common'} says nothing of the chance in training"
        )
    each = "seeds each" if pair.has_all_seeds else "seeds that both have"
    return f"{LEVEL:.0%} interval {span}; {len(pair.seeds)} {each}, {same}"


def tested_words(pair: Pair) -> str:
    """For a headline that has named both and their distance."""
    # Where a seed is missing on one side, the pairs' difference is not that of the means.
    found = evidence(pair)
    if pair.interval is not None and not pair.has_all_seeds:
        found = f"{signed(pair.interval.mean)}, {found}"
    if pair.settled:
        return f"Tested in pairs: {found}."
    return f"This order is not settled: tested in pairs, {found}."
