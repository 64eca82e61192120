"""Batches as a pure function of (seed, step)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
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
    window = torch.from_numpy(ids[starts[:, None] + np.arange(seq_len + 1)].astype(np.int64))
    return window[:, :-1], window[:, 1:]


def extra_inputs(
    ids: NDArray[np.unsignedinteger], seed: int, rows: int, seq_len: int
) -> Iterator[Tensor]:
    """Inputs, (rows, seq_len) each, of batches that no step draws: a training's steps start at
    0."""
    for step in itertools.count(2**63):
        yield draw_batch(ids, seed, step, rows, seq_len)[0]


@lru_cache(maxsize=2)
def _starts(seed: int, first: int, rows: int, positions: int) -> NDArray[np.int64]:
    """(STEPS_PER_DRAW, rows): the start of each row in the steps from `first` on."""
    # np.uint64, because numpy turns a list with a number above 2^63 into floats.
    keys = np.array([[seed, first + step] for step in range(STEPS_PER_DRAW)], np.uint64)
    raw = np.stack([np.random.Philox(key=key).random_raw(rows) for key in keys])
    return (raw % np.uint64(positions)).astype(np.int64)
