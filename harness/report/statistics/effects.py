"""What each change of an ablation does, added to the base alone and left out of all.

The intervals are those of the pairs, on validation: for text like this and for new seeds. Holm's
correction is over all effects of the ablation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.report.statistics.paired import LEVEL, Interval, holm
from harness.report.statistics.where import Tokens, divide

Losses = Mapping[str, Sequence[NDArray[np.floating]]]
"""The nats of every token, of each seed, by the name of the variant."""


@dataclass(frozen=True)
class Comparand:
    """Two variants that differ in one change, or in all. how: `added` to the base, `left out` of
    all, or `all` at once. without, within: their names."""

    change: str
    how: str
    without: str
    within: str


@dataclass(frozen=True)
class Effect:
    """gain: how many bits per byte fewer the variant with the change pays; None if one of the two
    has no score. seeds: of the two. p: after Holm's correction."""

    comparand: Comparand
    gain: float | None
    interval: Interval | None
    seeds: tuple[int, int]
    p: float = 1.0

    @property
    def is_significant(self) -> bool:
        """Whether it is an effect of the change, by several seeds of both."""
        return self.p < 1 - LEVEL and min(self.seeds) > 1


@dataclass(frozen=True)
class Ablation:
    """budget: of each variant, in words. missing: the seeds that a variant lacks, in words."""

    base: str
    effects: tuple[Effect, ...]
    budget: str
    text_bytes: int
    missing: tuple[str, ...] = ()

    @property
    def family(self) -> int:
        """The number of effects that p is corrected for."""
        return sum(effect.interval is not None for effect in self.effects)


def find_effects(
    losses: Losses, tokens: Tokens, comparands: Sequence[Comparand]
) -> tuple[Effect, ...]:
    """All effects, in the order given."""
    found = [_effect(losses, tokens, comparand) for comparand in comparands]
    corrected = iter(holm([effect.p for effect in found if effect.interval is not None]))
    return tuple(
        effect
        if effect.interval is None
        else Effect(effect.comparand, effect.gain, effect.interval, effect.seeds, next(corrected))
        for effect in found
    )


def _effect(losses: Losses, tokens: Tokens, comparand: Comparand) -> Effect:
    within, without = losses.get(comparand.within, ()), losses.get(comparand.without, ())
    seeds = len(without), len(within)
    if not min(seeds):
        return Effect(comparand, None, None, seeds)
    pair = divide(within, without, tokens, [])
    p = 1.0 if pair.interval is None else pair.interval.p
    return Effect(comparand, pair.total, pair.interval, seeds, p)
