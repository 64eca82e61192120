"""Batches as a pure function of (seed, step)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.data.encoded import Documents

STEPS_PER_DRAW = 64  # drawing for a single step costs ten times as much
IGNORED = -1  # a target without a loss


def draw_batch(
    ids: NDArray[np.unsignedinteger],
    seed: int,
    step: int,
    rows: int,
    seq_len: int,
    documents: Documents | None = None,
) -> tuple[Tensor, Tensor]:
    """The batch of one optimizer step: inputs and targets, int64 (rows, seq_len) each.

    Rows start at uniformly random positions of the split (up to one part in 2^32). The generator is
    counter-based (Philox, Salmon et al. 2011) and keyed by (seed, step), so that any step's batch
    is drawn without the earlier ones. numpy guarantees that its raw output never changes.

    documents: if given, each row is one, from its beginning on, or a piece of a longer one
    (`_pieces`). Rows are as long as the longest piece of the split; behind a shorter one targets
    are IGNORED. Of a task they are new examples instead. Of a mix each row is of one text, which is
    drawn by its weight, at a uniformly random position of it.
    """
    if documents is not None and documents.task is not None:
        inputs, targets = documents.task.batch(seed, step, rows)
        return torch.from_numpy(inputs), torch.from_numpy(targets)
    first = step - step % STEPS_PER_DRAW
    if documents is None:
        starts_R = _starts(seed, first, rows, len(ids) - seq_len)[step - first]
        return _windows(ids, starts_R, seq_len)
    if documents.weights is not None:
        starts_R = _weighted_starts(seed, first, rows, documents, seq_len)[step - first]
        return _windows(ids, starts_R, seq_len)
    starts_P, lengths_P, time = _pieces(documents, seq_len)
    drawn_R = _starts(seed, first, rows, len(starts_P))[step - first]
    ends_R1 = (starts_P + lengths_P)[drawn_R][:, None]
    places = starts_P[drawn_R][:, None] + np.arange(time + 1)
    window = torch.from_numpy(ids[np.minimum(places, ends_R1)].astype(np.int64))
    is_padding = torch.from_numpy(places[:, 1:] > ends_R1)
    return window[:, :-1], window[:, 1:].masked_fill(is_padding, IGNORED)


def shuffled_batch(
    ids: NDArray[np.unsignedinteger],
    seed: int,
    first: int,
    rows: int,
    seq_len: int,
    trained: int | None = None,
) -> tuple[Tensor, Tensor]:
    """As `draw_batch`, but rows come without replacement: those of an epoch cover the split, in an
    order of its own, and then come those of the next.

    first: how many rows came before, however they were shared out to steps. trained: how many
    positions at the end of a row have a loss; None: all. In an epoch each token that can be the
    target of one is one once, but for fewer than `trained` of them at the two ends, which are
    twice.
    """
    trained = trained or seq_len
    count = rows_in(len(ids), seq_len, trained)
    starts = np.empty(rows, dtype=np.int64)
    row = 0
    while row < rows:
        epoch, at = divmod(first + row, count)
        some = _epoch(seed, epoch, len(ids), seq_len, trained)[at : at + rows - row]
        starts[row : row + len(some)] = some
        row += len(some)
    return _windows(ids, starts, seq_len)


def rows_in(tokens: int, seq_len: int, trained: int) -> int:
    """The rows of an epoch."""
    return -(-(tokens - 1 - seq_len) // trained) + 1


def _windows(
    ids: NDArray[np.unsignedinteger], starts: NDArray[np.int64], seq_len: int
) -> tuple[Tensor, Tensor]:
    window = torch.from_numpy(ids[starts[:, None] + np.arange(seq_len + 1)].astype(np.int64))
    return window[:, :-1], window[:, 1:]


def row_shape(
    documents: Documents | None, seq_len: int, trained: slice = slice(None)
) -> tuple[int, float]:
    """The positions of a row of a batch, and how many of them have a loss, on average. documents:
    as for `draw_batch`."""
    if documents is None or documents.weights is not None:
        return seq_len, len(range(seq_len)[trained])
    if documents.scored is not None:
        return int(documents.lengths.max()), float(documents.scored.sum() / len(documents))
    _, lengths_P, time = _pieces(documents, seq_len)
    return time, float(lengths_P.mean())


@lru_cache(maxsize=2)
def _pieces(documents: Documents, seq_len: int) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Where the rows of documents begin, (P,), how many predictions each has, (P,), and the most
    that one has. A document of more than seq_len is cut every seq_len predictions; each piece but
    the first begins, without a marker, with an empty past."""
    lengths_D = documents.lengths
    counts_D = -(-lengths_D // seq_len)
    first_P = np.repeat(np.cumsum(counts_D) - counts_D, counts_D)
    before_P = (np.arange(len(first_P)) - first_P) * seq_len
    starts_P = np.repeat(documents.borders[:-1], counts_D) + before_P
    lengths_P = np.minimum(np.repeat(lengths_D, counts_D) - before_P, seq_len)
    return starts_P, lengths_P, int(lengths_P.max())


def extra_batches(
    ids: NDArray[np.unsignedinteger],
    seed: int,
    rows: int,
    seq_len: int,
    documents: Documents | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and targets, (rows, seq_len) each, of batches that no step draws: a training's steps
    start at 0."""
    for step in itertools.count(2**63):
        yield draw_batch(ids, seed, step, rows, seq_len, documents)


@lru_cache(maxsize=2)
def _epoch(seed: int, epoch: int, tokens: int, seq_len: int, trained: int) -> NDArray[np.int64]:
    """(rows,): where the rows of an epoch begin, in its order. Side by side they reach beyond the
    two ends together by less than a row; how far beyond the first is drawn, so that their borders
    move. Those at the ends are pushed inside."""
    # Far from the numbers that `_starts` takes of the same key.
    philox = np.random.Philox(key=np.array([seed, epoch], np.uint64), counter=1 << 192)
    count, last = rows_in(tokens, seq_len, trained), tokens - 1 - seq_len
    before = int(philox.random_raw()) % ((count - 1) * trained - last + 1)
    starts = np.clip(np.arange(count) * trained - before, 0, last)
    return starts[np.argsort(philox.random_raw(count), kind="stable")]


@lru_cache(maxsize=2)
def _starts(seed: int, first: int, rows: int, positions: int) -> NDArray[np.int64]:
    """(STEPS_PER_DRAW, rows): the start of each row in the steps from `first` on."""
    return (_raw(seed, first, rows) % np.uint64(positions)).astype(np.int64)


@lru_cache(maxsize=2)
def _weighted_starts(
    seed: int, first: int, rows: int, documents: Documents, seq_len: int
) -> NDArray[np.int64]:
    """As `_starts`, of the texts of a mix: which one, and where in it."""
    assert documents.weights is not None, "of a mix"
    which, where = np.split(_raw(seed, first, 2 * rows), 2, axis=1)
    shares = np.cumsum(documents.weights)[:-1]
    text = np.searchsorted(shares, (which >> np.uint64(11)) * 2.0**-53, side="right")
    positions_D = (documents.lengths - seq_len).astype(np.uint64)
    return documents.borders[text] + (where % positions_D[text]).astype(np.int64)


def _raw(seed: int, first: int, numbers: int) -> NDArray[np.uint64]:
    """(STEPS_PER_DRAW, numbers), of the steps from `first` on."""
    # np.uint64, because numpy turns a list with a number above 2^63 into floats.
    keys = np.array([[seed, first + step] for step in range(STEPS_PER_DRAW)], np.uint64)
    return np.stack([np.random.Philox(key=key).random_raw(numbers) for key in keys])
