"""Batches as a pure function of (seed, step)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

STEPS_PER_DRAW = 64  # drawing for a single step costs ten times as much


def draw_batch(
    ids: NDArray[np.unsignedinteger], seed: int, step: int, rows: int, seq_len: int
) -> tuple[Tensor, Tensor]:
    """The batch of one optimizer step: inputs and targets, int64 (rows, seq_len) each.

    Rows start at uniformly random positions of the split (up to one part in 2^32). The generator is
    counter-based (Philox, Salmon et al. 2011) and keyed by (seed, step), so that any step's batch
    is drawn without the earlier ones. numpy guarantees that its raw output never changes.
    """
    first = step - step % STEPS_PER_DRAW
    starts = _starts(seed, first, rows, len(ids) - seq_len)[step - first]
    return _windows(ids, starts, seq_len)


def shuffled_batch(
    ids: NDArray[np.unsignedinteger],
    seed: int,
    step: int,
    rows: int,
    seq_len: int,
    trained: int | None = None,
) -> tuple[Tensor, Tensor]:
    """As `draw_batch`, but rows come without replacement: those of an epoch cover the split, in an
    order of its own, and then come those of the next.

    trained: how many positions at the end of a row have a loss; None: all. In an epoch each token
    that can be the target of one is one once, but for fewer than `trained` of them at the two
    ends, which are twice.
    """
    trained = trained or seq_len
    count, first = rows_in(len(ids), seq_len, trained), step * rows
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
    # np.uint64, because numpy turns a list with a number above 2^63 into floats.
    keys = np.array([[seed, first + step] for step in range(STEPS_PER_DRAW)], np.uint64)
    raw = np.stack([np.random.Philox(key=key).random_raw(rows) for key in keys])
    return (raw % np.uint64(positions)).astype(np.int64)
