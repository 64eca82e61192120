"""A split scored again one token at a time, by a model that has not been given what comes later.

Windows lie as the score's definition places them, many side by side; a stream is cut into
stretches, side by side, each from the cache that calls of the score's kind carried there. Of
documents each begins with an empty cache.
R rows, N predictions of a split, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.data.encoded import Documents, Split
from harness.evaluation.score import STREAM_CHUNK, ScoredWindow, document_windows, windows
from harness.referee.decoder import Decoder, Ids, Logits

CACHE_BYTES = 2**28  # of all rows side by side
LOGITS = 2**24
MOST_ROWS = 1024
SAMPLED = 2048  # predictions that a sample checks, about
PLACES = 16  # of a sample in a stream
STRETCH = 384  # tokens of a stream that each row is fed: 3 · 2⁷, where most rings coincide

# By how much the mean may differ from that of the score's own calls, in nats per token: over three
# times the most that an honest model of the zoo did (experiments/2026-11-28-referee).
BOUND = {"fp32": 2e-6, "bf16": 2e-3, "fp16": 5e-4}

Nats = NDArray[np.float64]


@dataclass(frozen=True)
class Rescored:
    """nats: of each prediction, (N,); NaN for those that were not checked. how: in words."""

    nats: Nats
    how: str

    @property
    def checked(self) -> NDArray[np.bool_]:
        return ~np.isnan(self.nats)


def nats_R(logits_RV: Logits, targets_R: Ids) -> Nats:
    """-ln p(target), by a softmax of our own in float64: the model's process is not asked."""
    exact_RV = logits_RV.astype(np.float64)
    with np.errstate(invalid="ignore"):  # of infinite logits
        exact_RV -= exact_RV.max(axis=1, keepdims=True)
        total_R = np.log(np.exp(exact_RV).sum(axis=1))
    found: Nats = total_R - exact_RV[np.arange(len(targets_R)), targets_R]
    return np.where(np.isnan(found), np.inf, found)


def rescore_split(
    decoder: Decoder,
    split: Split,
    stride: int | None,
    complete: bool,
    seed: int,
    in_time: Callable[[], bool],
) -> Rescored:
    """As `rescore`; of a mix each text by itself. Nothing predicts the first token of a text."""
    if not split.texts:
        ids = np.asarray(split.ids)
        return rescore(decoder, ids, stride, complete, seed, in_time, split.documents)
    each = [
        rescore_split(decoder, text, stride, complete, seed, in_time)
        for text in split.texts.values()
    ]
    gap = np.zeros(1) if complete else np.full(1, np.nan)
    nats = [part for own in each for part in (own.nats, gap)][:-1]
    return Rescored(np.concatenate(nats), "; ".join(own.how for own in each))


def rescore(
    decoder: Decoder,
    ids: Ids,
    stride: int | None,
    complete: bool,
    seed: int = 0,
    in_time: Callable[[], bool] = lambda: True,
    documents: Documents | None = None,
) -> Rescored:
    """The nats of each prediction, or of a seeded sample. in_time: whether a sample may go on."""
    block_size, vocab_size, cache_bytes = decoder.describe()
    rows = min(MOST_ROWS, CACHE_BYTES // max(1, cache_bytes), LOGITS // vocab_size)
    found = np.full(len(ids) - 1, np.nan)
    if block_size is not None or documents is not None:
        most = None if complete else STRETCH
        plan = scored_windows(len(ids) - 1, block_size, stride, documents, most)
        if documents is None:
            usual = max(1, plan[-1].new, plan[0].new // 2)
        else:
            usual = max(1, sum(each.new for each in plan) // len(plan))
        sample = None if complete else max(8, SAMPLED // usual)
        how = _windows(decoder, ids, plan, max(1, rows), sample, seed, found, in_time)
    else:
        how = _chunks(decoder, ids, max(1, rows), complete, seed, found, in_time)
    return Rescored(found, how)


def scored_windows(
    targets: int,
    block_size: int | None,
    stride: int | None,
    documents: Documents | None,
    most: int | None = None,
) -> list[ScoredWindow]:
    """The windows of a bounded model as the score places them; of documents those of each. most:
    tokens of a document, from its beginning on, if the model is unbounded."""
    if documents is not None:
        plan = document_windows(documents, block_size, stride)
        if block_size is None and most is not None:
            heads = ((each.start, min(each.length, most)) for each in plan)
            plan = [ScoredWindow(start, length, length) for start, length in heads]
        return plan
    length = min(block_size or targets, targets)
    return [
        ScoredWindow(start, length, new)
        for start, new in windows(targets, length, stride or length)
    ]


def _windows(
    decoder: Decoder,
    ids: Ids,
    plan: list[ScoredWindow],
    rows: int,
    sample: int | None,
    seed: int,
    found: Nats,
    in_time: Callable[[], bool],
) -> str:
    """sample: how many of them; None: all."""
    chosen = list(range(len(plan)))
    if sample is not None:
        generator = np.random.default_rng(seed)
        count = min(len(plan), sample)
        chosen = sorted(generator.choice(len(plan), count, replace=False).tolist())
    chosen.sort(key=lambda number: plan[number].length)  # those of one length side by side
    for first in range(0, len(chosen), rows):
        if first and sample is not None and not in_time():
            break
        batch = [plan[number] for number in chosen[first : first + rows]]
        for places, nats in window_nats(decoder, ids, batch):
            found[places] = nats
    return f"{len(chosen)} of {len(plan)} windows side by side"


def window_nats(
    decoder: Decoder, ids: Ids, batch: list[ScoredWindow]
) -> Iterator[tuple[Ids, Nats]]:
    """The predictions of these windows, one at a time: their places in the split, and nats. A
    window that is at its end waits for the longer ones."""
    starts_R, lengths_R, new_R = np.array(batch).T
    decoder.start(len(batch))
    for step in range(int(lengths_R.max())):
        wanted = np.flatnonzero((step >= lengths_R - new_R) & (step < lengths_R))
        logits_RV = decoder.feed(ids[starts_R + np.minimum(step, lengths_R)], wanted)
        places_R = starts_R[wanted] + step
        if len(wanted):
            yield places_R, nats_R(logits_RV, ids[places_R + 1])


def _chunks(
    decoder: Decoder,
    ids: Ids,
    rows: int,
    complete: bool,
    seed: int,
    found: Nats,
    in_time: Callable[[], bool],
) -> str:
    """A stream, from the caches at the start of each stretch, or in a sample from those at a few
    places. Only earlier tokens have been in a call that led to them."""
    targets = len(ids) - 1
    begins, steps = list(range(0, targets, STRETCH)), STRETCH
    if not complete:
        # Caches that are rings can be stacked only where their beginnings coincide.
        apart = STRETCH if targets > 2**13 else 96
        steps = max(8, min(128, apart, targets // 64))
        count = min(PLACES, targets // 96)
        generator = np.random.default_rng(seed)
        last = max(0, targets - steps)
        phase = int(generator.integers(0, min(apart, last + 1)))
        possible = (last - phase) // apart + 1
        chosen = generator.choice(possible, min(count, possible), replace=False)
        places = chosen * apart + phase
        begins = sorted({0, *places.tolist()})
    decoder.start(1)
    reached = 0
    kept: list[int] = []  # where
    for begin in begins:
        if len(kept) > 1 and not complete and not in_time():
            break
        while reached < begin:
            stop = min(begin, (reached // STREAM_CHUNK + 1) * STREAM_CHUNK)
            decoder.carry(ids[reached:stop])
            reached = stop
        decoder.keep()
        kept.append(begin)
    # The first has an empty cache, which may be of another shape: alone, and in text order.
    groups = [[0]] + [
        list(range(first, min(first + rows, len(kept)))) for first in range(1, len(kept), rows)
    ]
    singly = 0
    for group in groups:
        stacked = len(group) > 1 and _stacks(decoder, ids, kept, group)
        parts = [group] if stacked or len(group) == 1 else [[number] for number in group]
        for part in parts:
            if not stacked and singly and not complete and not in_time():
                break
            singly += not stacked
            decoder.resume(part)
            _feed_rows(decoder, ids, [kept[number] for number in part], steps, found)
    return f"{len(kept)} stretches of {steps} tokens, {len(kept) - singly} of them side by side"


def _stacks(decoder: Decoder, ids: Ids, kept: list[int], group: list[int]) -> bool:
    """Whether these caches go on side by side as they do singly: each of a few is tried, of many,
    which are evenly apart, two neighbours and the last."""
    places = np.array([kept[number] for number in group])
    if not decoder.resume(group):
        return False
    steps = 3
    together = [decoder.feed(ids[places + step], np.arange(len(group))) for step in range(steps)]
    tried = range(len(group)) if len(group) <= PLACES else (0, 1, len(group) - 1)
    for row in tried:
        decoder.resume([group[row]])
        for step in range(steps):
            alone = decoder.feed(ids[places[row : row + 1] + step], np.zeros(1, np.int64))[0]
            off = np.abs(alone - together[step][row]).max()
            if not off <= 0.02 * np.abs(alone).max():
                return False
    return True


def _feed_rows(decoder: Decoder, ids: Ids, begins: list[int], steps: int, found: Nats) -> None:
    """Each row from its place on, up to `steps` tokens or the end of the text."""
    targets, begins_R = len(ids) - 1, np.array(begins)
    for step in range(min(steps, targets - int(begins_R.min()))):
        places_R = np.minimum(begins_R + step, targets - 1)
        wanted = np.flatnonzero(begins_R + step < targets)
        logits_RV = decoder.feed(ids[places_R], wanted)
        found[places_R[wanted]] = nats_R(logits_RV, ids[places_R[wanted] + 1])
