"""Paired tests of all pairs of groups in a ranking."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.report.records.groups import Group, by_data
from harness.report.records.runs import RunRecord
from harness.report.statistics.paired import LEVEL, MIN_BLOCKS, Interval, holm, paired_interval
from harness.runs.blocks import FILE

MAX_TESTED = 16  # groups; more than 120 pairs would leave Holm's correction little power


@dataclass(frozen=True)
class Pair:
    """Two groups, and how much lower the test bits per byte of `better` are than those of `worse`.

    p: two-sided, after Holm's correction for `family` pairs, all that were tested on this data set.
    documents: how many the test split has; None for one text.
    untested: why there is no interval, or None.
    """

    better: Group
    worse: Group
    text_bytes: int = 0
    documents: float | None = None
    interval: Interval | None = None
    p: float = 1.0
    family: int = 0
    untested: str | None = None

    @property
    def is_significant(self) -> bool:
        """Whether the difference is significant after Holm's correction."""
        return self.p < 1 - LEVEL

    @property
    def seeds(self) -> tuple[int, int]:
        """How many seeds each has."""
        return len(self.better.counted), len(self.worse.counted)

    @property
    def has_one_seed(self) -> bool:
        """Whether the test covers only the choice of the text, and not the chance in training."""
        return min(self.seeds) == 1


def compare_pairs(ranked: Sequence[Group]) -> tuple[Pair, ...]:
    """All pairs of the first MAX_TESTED groups of each data set, in the order of the ranking."""
    pairs: list[Pair] = []
    for groups in by_data(ranked).values():
        tested_groups = groups[:MAX_TESTED]
        own = [_test(first, second) for first, second in itertools.combinations(tested_groups, 2)]
        pairs += correct(own)
    return tuple(pairs)


def correct(pairs: Sequence[Pair]) -> list[Pair]:
    """Holm's correction over all of these that were tested."""
    p_values = [pair.interval.p for pair in pairs if pair.interval is not None]
    corrected = iter(holm(p_values))
    return [
        replace(pair, p=next(corrected), family=len(p_values)) if pair.interval else pair
        for pair in pairs
    ]


def _test(first: Group, second: Group) -> Pair:
    untested = _why_untested([*first.counted, *second.counted])
    if untested:
        return Pair(first, second, untested=untested)
    blocks = first.counted[0].blocks
    assert blocks is not None  # or it would be untested
    first_SK, second_SK = (
        np.array([bits_per_block(run) for run in own.counted]) for own in (first, second)
    )
    of_documents = blocks.documents is not None
    interval = paired_interval(first_SK, second_SK, blocks.sizes, documents=of_documents)
    test = first.counted[0].test
    return as_pair(first, second, interval, blocks.bytes, test.documents if test else None)


def as_pair(
    first: Group,
    second: Group,
    interval: Interval,
    text_bytes: int,
    documents: float | None = None,
) -> Pair:
    """interval: of how much more the second pays. p is not corrected yet: `correct`."""
    if interval.mean < 0:  # blocks sum to the score but for rounding, which can reverse a tie
        first, second = second, first
        interval = Interval(-interval.mean, -interval.high, -interval.low, interval.p)
    return Pair(first, second, text_bytes, documents, interval)


def _why_untested(runs: Sequence[RunRecord]) -> str | None:
    blocks = [run.blocks for run in runs if run.blocks is not None]
    if len(blocks) < len(runs):
        return f"a run has no {FILE}: it was trained by an older version"
    if len({each.text for each in blocks}) > 1:
        return "scored on different test bytes"
    if len(blocks[0].nats) < MIN_BLOCKS:
        if blocks[0].documents is not None:
            return (
                f"{len(blocks[0].nats)} test documents are too few: {MIN_BLOCKS} are the least to "
                "test"
            )
        return (
            f"a test text of {blocks[0].bytes:,} bytes is too short: "
            f"{MIN_BLOCKS} blocks of {blocks[0].block_bytes} bytes are the least to test"
        )
    return None


def bits_per_block(run: RunRecord) -> np.ndarray:
    """(K,): bits of each block, scaled so that their sum is bits per byte times the text's bytes.

    The first token is not scored, and tokenizers differ in how many bytes it has.
    """
    assert run.blocks is not None  # see _test
    assert run.test is not None  # a counted run has a score
    scored = run.test.bytes or run.blocks.bytes
    return np.array(run.blocks.nats) / math.log(2) * (run.blocks.bytes / scored)


def adjacent_pairs(pairs: Sequence[Pair], ranked: Sequence[Group]) -> list[Pair]:
    """The pairs of neighbours in the ranking."""
    wanted = {frozenset((id(first), id(second))) for first, second in itertools.pairwise(ranked)}
    return [pair for pair in pairs if frozenset((id(pair.better), id(pair.worse))) in wanted]
