"""Where the difference of two models comes from: its parts by classes of tokens.

The unit is that of the pairs (`paired`): bits per byte of the whole text. So the parts of one
partition sum to the whole difference, and each has the interval of a pair: per block of text, for
new text like this and for new seeds. A class's share of the text is taken as it is: how many names
a page has varies from page to page, and says nothing of how well they are predicted. So an interval
is that of the bits per byte of the class, times its share; and a class that comes in a few long
stretches is as uncertain as so few stretches are (`paired.share_of_part`).

The best model is found in the same text that it is compared on, and each pair has the best. So
Holm's correction is over all pairs of all models for the whole differences, as for the pairs of the
report, and for the classes over all classes of all those pairs.

S seeds, N scored tokens, M = N + 1 tokens, K blocks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from harness.evaluation.token_classes import Labels, Partition
from harness.report.records.groups import Group
from harness.report.records.selection import Split
from harness.report.statistics import differences
from harness.report.statistics.differences import Pair
from harness.report.statistics.paired import LEVEL, MIN_BLOCKS, Interval, holm, paired_interval
from harness.report.statistics.passages import Contrast
from harness.runs.blocks import block_size, per_block


@dataclass(frozen=True)
class Tokens:
    """The text that was scored. sizes: (M,), bytes of each token. scored: bytes that the score is
    about, those of unknown characters included. unknown_nats: what those cost every model."""

    sizes: NDArray[np.integer]
    scored: int
    unknown_nats: float = 0.0

    def bits_K(self, nats_N: NDArray[np.floating]) -> NDArray[np.float64]:
        """Bits of each block, scaled so that their sum is bits per byte times the blocks' bytes."""
        scale = float(self.sizes.sum()) / self.scored / math.log(2)
        nats_M = np.concatenate(([0.0], nats_N))  # nothing predicts the first
        return per_block(nats_M, self.sizes) * scale


@dataclass(frozen=True)
class Part:
    """A class of tokens. share: of all tokens. first, second: bits per token of the class, each
    model's mean over seeds. difference: what the second pays more, in bits per byte of the whole
    text. interval: of it; None where the class is in too few blocks. p: after Holm's correction."""

    name: str
    tokens: int
    share: float
    first: float
    second: float
    difference: float
    interval: Interval | None
    p: float = 1.0

    @property
    def is_significant(self) -> bool:
        return self.p < 1 - LEVEL


@dataclass(frozen=True)
class Division:
    """A partition's classes that have tokens. parts: their differences sum to the whole one."""

    title: str
    note: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class PairDivided:
    """total: how much more the second pays, in bits per byte. interval: of it; None where the text
    is too short. seeds: of each. differences: (N,), in bits of each token, the mean over seeds."""

    total: float
    interval: Interval | None
    seeds: tuple[int, int]
    divisions: tuple[Division, ...]
    differences: NDArray[np.float64]


def divide(
    first_SN: Sequence[NDArray[np.floating]],
    second_SN: Sequence[NDArray[np.floating]],
    tokens: Tokens,
    partitions: Sequence[Partition],
) -> PairDivided:
    """Two models by their nats of every token. p is not corrected yet: `correct`."""
    means = [np.mean(np.stack(own).astype(np.float64), axis=0) for own in (first_SN, second_SN)]
    everything = np.ones(len(means[0]), bool)
    interval = _interval(first_SN, second_SN, tokens, everything)
    divisions = []
    for partition in partitions:
        parts = [
            _part(name, partition.labels == label, first_SN, second_SN, means, tokens)
            for label, name in enumerate(partition.names)
        ]
        found = tuple(part for part in parts if part.tokens)
        if len(found) > 1:
            divisions.append(Division(partition.title, partition.note, found))
    difference_N = (means[1] - means[0]) / math.log(2)
    total = _per_byte(difference_N, tokens)
    seeds = len(first_SN), len(second_SN)
    return PairDivided(total, interval, seeds, tuple(divisions), difference_N)


def _part(
    name: str,
    inside_N: NDArray[np.bool_],
    first_SN: Sequence[NDArray[np.floating]],
    second_SN: Sequence[NDArray[np.floating]],
    means: Sequence[NDArray[np.float64]],
    tokens: Tokens,
) -> Part:
    count = int(inside_N.sum())
    if not count:
        return Part(name, 0, 0.0, 0.0, 0.0, 0.0, None)
    first, second = (float(mean[inside_N].mean()) / math.log(2) for mean in means)
    difference = _per_byte((means[1] - means[0])[inside_N] / math.log(2), tokens)
    interval = _interval(first_SN, second_SN, tokens, inside_N)
    p = 1.0 if interval is None else interval.p
    return Part(name, count, count / len(inside_N), first, second, difference, interval, p)


def _per_byte(bits: NDArray[np.float64], tokens: Tokens) -> float:
    return math.fsum(bits.tolist()) / tokens.scored


def _interval(
    first_SN: Sequence[NDArray[np.floating]],
    second_SN: Sequence[NDArray[np.floating]],
    tokens: Tokens,
    inside_N: NDArray[np.bool_],
) -> Interval | None:
    """None if the class is in fewer than MIN_BLOCKS blocks."""
    is_part = not inside_N.all()
    own_N = inside_N * tokens.sizes[1:] if is_part else tokens.sizes[1:]
    bytes_K = per_block(np.concatenate(([0 if is_part else tokens.sizes[0]], own_N)), tokens.sizes)
    if np.count_nonzero(bytes_K) < MIN_BLOCKS:
        return None
    first_SK, second_SK = (
        np.stack([tokens.bits_K(np.where(inside_N, nats_N, 0.0)) for nats_N in own])
        for own in (first_SN, second_SN)
    )
    block_bytes = block_size(int(tokens.sizes.sum()))
    found = paired_interval(first_SK, second_SK, bytes_K, block_bytes if is_part else None)
    share = float(bytes_K.sum()) / float(tokens.sizes.sum())
    return Interval(found.mean * share, found.low * share, found.high * share, found.p)


def whole_pairs(
    groups: Sequence[Group],
    losses: Sequence[Sequence[NDArray[np.floating]]],
    tokens: Tokens,
    text_bytes: int,
) -> list[Pair]:
    """The whole differences of all pairs of these models, those of the first one first.

    losses: of each group the nats of every token, of each seed."""
    blocks_GSK = [np.stack([tokens.bits_K(nats_N) for nats_N in own]) for own in losses]
    bytes_K = per_block(tokens.sizes.astype(np.float64), tokens.sizes)
    found = []
    for first, second in itertools.combinations(range(len(groups)), 2):
        pair = groups[first], groups[second]
        if np.count_nonzero(bytes_K) < MIN_BLOCKS:
            words = f"{text_bytes:,} bytes are too short: {MIN_BLOCKS} blocks are the least to test"
            found.append(Pair(*pair, text_bytes, untested=words))
        else:
            interval = paired_interval(blocks_GSK[first], blocks_GSK[second], bytes_K)
            found.append(differences.as_pair(*pair, interval, text_bytes))
    return differences.correct(found)


def correct(pairs: Sequence[PairDivided]) -> list[PairDivided]:
    """Holm's correction. pairs: of the best model and each other one; the family has the classes of
    all pairs of these models, as any might have been the best."""
    every = [part for pair in pairs for own in pair.divisions for part in own.parts]
    tested = [part for part in every if part.interval is not None]
    corrected = iter(holm([part.p for part in tested], family(pairs)))

    def with_p(part: Part) -> Part:
        return replace(part, p=next(corrected) if part.interval is not None else 1.0)

    return [
        replace(
            pair,
            divisions=tuple(
                replace(own, parts=tuple(map(with_p, own.parts))) for own in pair.divisions
            ),
        )
        for pair in pairs
    ]


def family(pairs: Sequence[PairDivided]) -> int:
    """The number of tests that the classes are corrected for: of k models k - 1 pairs are divided,
    of k (k - 1) / 2, in the same classes."""
    every = [part for pair in pairs for own in pair.divisions for part in own.parts]
    models = len(pairs) + 1
    return math.ceil(sum(part.interval is not None for part in every) * models / 2)


@dataclass(frozen=True)
class ContextCurve:
    """A model's loss by the tokens of context. last: the most tokens of each range. bits, low,
    high: bits per byte, the mean, lowest and highest seed. trained: its training sequences'
    length. full: its score."""

    last: tuple[int, ...]
    bits: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    trained: int
    full: float

    @property
    def gains_until(self) -> int:
        """The context past which more of it changes the loss by less than GAIN: the end of the last
        range whose loss is not yet that of the longest; 0 if there is none."""
        open_ = [
            e
            for e, bits in zip(self.last, self.bits, strict=True)
            if abs(bits - self.bits[-1]) >= GAIN
        ]
        return max(open_, default=0)


GAIN = 0.001  # bits per byte


def context_curve(
    full_SN: Sequence[NDArray[np.floating]],
    limited_SN: Sequence[NDArray[np.floating]],
    contexts_N: Labels,
    trained: int,
    tokens: Tokens,
) -> ContextCurve:
    """The loss with a context of 1, 2, 3-4, 5-8 tokens and so on.

    Few tokens of a text have each length. So what is averaged is how much more the same token costs
    than with its whole context, and that is added to the score: a model that sees k tokens has a
    level line from k on, not one that wavers with the text.
    """
    longest = int(contexts_N.max())
    ends = [2**power for power in range((longest - 1).bit_length())] + [longest]
    range_N = np.searchsorted(ends, contexts_N)
    per_range = np.bincount(range_N, minlength=len(ends))
    found = []
    for full_N, limited_N in zip(full_SN, limited_SN, strict=True):
        extra_N = (limited_N.astype(np.float64) - full_N) / math.log(2)
        extra = np.bincount(range_N, extra_N, minlength=len(ends)) / per_range
        nats = float(full_N.sum(dtype=np.float64)) + tokens.unknown_nats
        score = nats / math.log(2) / tokens.scored
        found.append((score, score + extra * (len(full_N) / tokens.scored)))
    bits_SE = np.stack([bits for _, bits in found])
    mean, low, high = (tuple(f(bits_SE, axis=0).tolist()) for f in (np.mean, np.min, np.max))
    full = float(np.mean([score for score, _ in found]))
    return ContextCurve(tuple(ends), mean, low, high, trained, full)


@dataclass(frozen=True)
class PairWhere:
    """The best group and another. whole: the test of the whole difference. found: with positive
    differences where the best is better."""

    first: Group
    second: Group
    whole: Pair
    found: PairDivided
    contrasts: tuple[Contrast, ...]


@dataclass(frozen=True)
class Where:
    """Of the ranked groups of a comparison. curves: of each group, over its context. floor: whose
    certainty divides the tokens; None without a counted run."""

    split: Split
    text_bytes: int
    pairs: tuple[PairWhere, ...]
    curves: tuple[tuple[Group, ContextCurve], ...]
    floor: Group | None

    @property
    def family(self) -> int:
        """The number of classes that p is corrected for."""
        return family([pair.found for pair in self.pairs])
