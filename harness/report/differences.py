"""Which models differ: every two of a ranking, tested in pairs and put into words."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from harness.report.format_numbers import chance, signed
from harness.report.paired import LEAST_BLOCKS, LEVEL, Interval, compare_in_pairs, holm
from harness.runs.blocks import FILE

if TYPE_CHECKING:
    from harness.report.ranking import Group
    from harness.report.runs import RunRecord

MOST_TESTED = 12  # 66 pairs: beyond, Holm's correction would leave little to be found


@dataclass(frozen=True)
class Pair:
    """Two groups, and how much lower the test bits per byte of `better` are than those of `worse`.

    interval: over the seeds that both have. p: two-sided, after Holm's correction for the `family`
    of pairs tested on this data set. untested: why there is no interval, or None.
    """

    better: Group
    worse: Group
    seeds: tuple[float, ...] = ()
    text_bytes: int = 0
    interval: Interval | None = None
    p: float = 1.0
    family: int = 0
    untested: str | None = None

    @property
    def settled(self) -> bool:
        """Whether one may be called better."""
        return self.p < 1 - LEVEL


def compare_pairs(ranked: Sequence[Group]) -> tuple[Pair, ...]:
    """Every two groups of one data set, in the order of the ranking; of a long one the first 12."""
    pairs: list[Pair] = []
    for data in dict.fromkeys(group.data for group in ranked):
        groups = [group for group in ranked if group.data == data][:MOST_TESTED]
        own = [_test(first, second) for first, second in itertools.combinations(groups, 2)]
        tested = [pair.interval for pair in own if pair.interval is not None]
        corrected = iter(holm([interval.p for interval in tested]))
        pairs += [
            replace(pair, p=next(corrected), family=len(tested)) if pair.interval else pair
            for pair in own
        ]
    return tuple(pairs)


def _test(first: Group, second: Group) -> Pair:
    runs = [{run.seed: run for run in group.counted} for group in (first, second)]
    seeds = tuple(sorted(seed for seed in runs[0].keys() & runs[1].keys() if seed is not None))
    both = [[own[seed] for seed in seeds] for own in runs]
    untested = _why_untested(both)
    if untested:
        return Pair(first, second, untested=untested)
    blocks = both[0][0].blocks
    assert blocks is not None  # else untested
    bits = [np.array([bits_per_block(run) for run in own]) for own in both]
    interval = compare_in_pairs(bits[1] - bits[0], blocks.sizes)
    if interval.mean < 0:  # over the seeds that both have, the order is the other way round
        first, second = second, first
        interval = Interval(-interval.mean, -interval.high, -interval.low, interval.p)
    return Pair(first, second, seeds, blocks.bytes, interval)


def _why_untested(both: Sequence[Sequence[RunRecord]]) -> str | None:
    runs = [run for own in both for run in own]
    if not runs:
        return "no seed in common"
    blocks = [run.blocks for run in runs if run.blocks is not None]
    if len(blocks) < len(runs):
        return f"a run has no {FILE}: it was trained by an older version"
    if len({each.text for each in blocks}) > 1:
        return "scored on different test bytes"
    if len(blocks[0].nats) < LEAST_BLOCKS:
        return (
            f"a test text of {blocks[0].bytes:,} bytes is too short: "
            f"{LEAST_BLOCKS} blocks of {blocks[0].block_bytes} bytes are the least to resample"
        )
    return None


def bits_per_block(run: RunRecord) -> np.ndarray:
    """(K,): bits of each block, such that they add up to bits per byte times the text's bytes.

    The bytes of the first token are not paid for, and tokenizers differ in how many these are.
    """
    assert run.blocks is not None  # as in _test
    assert run.test is not None  # a counted run was scored
    scored = run.test.bytes or run.blocks.bytes
    return np.array(run.blocks.nats) / math.log(2) * (run.blocks.bytes / scored)


def sentence(pair: Pair) -> str:
    """What the test of one pair shows, and no more."""
    first, second = pair.better.label, pair.worse.label
    if pair.interval is None:
        return f"{first} and {second} were not tested in pairs: {pair.untested}."
    once = f"With seed {pair.seeds[0]:g}, " if len(pair.seeds) == 1 else ""
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
    if len(pair.seeds) == 1:
        return (
            f"{LEVEL:.0%} interval {span}, for the choice of text alone; {same}; one seed"
            f"{'' if _all_seeds(pair) else ' in common'} says nothing of the chance in training"
        )
    each = "seeds each" if _all_seeds(pair) else "seeds that both have"
    return f"{LEVEL:.0%} interval {span}; {len(pair.seeds)} {each}, {same}"


def _all_seeds(pair: Pair) -> bool:
    return all(len(group.counted) == len(pair.seeds) for group in (pair.better, pair.worse))


def tested_words(pair: Pair) -> str:
    """For a headline that has named both and their distance."""
    # Where a seed is missing on one side, the pairs' difference is not that of the means.
    found = evidence(pair)
    if pair.interval is not None and not _all_seeds(pair):
        found = f"{signed(pair.interval.mean)}, {found}"
    if pair.settled:
        return f"Tested in pairs: {found}."
    return f"This order is not settled: tested in pairs, {found}."


def neighbours(pairs: Sequence[Pair], ranked: Sequence[Group]) -> list[Pair]:
    """The pairs that stand next to each other in the ranking."""
    wanted = [{id(first), id(second)} for first, second in itertools.pairwise(ranked)]
    return [pair for pair in pairs if {id(pair.better), id(pair.worse)} in wanted]
