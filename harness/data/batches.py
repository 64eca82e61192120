"""A batch is a pure function of (seed, step)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

STARTED = 64  # steps whose random numbers are drawn together: one's setting up is nine tenths


def draw_batch(
    ids: NDArray[np.unsignedinteger], seed: int, step: int, rows: int, seq_len: int
) -> tuple[Tensor, Tensor]:
    """The batch of one optimizer step: inputs and targets, int64 (rows, seq_len) each. (Here every
    target counts; the loop would leave out those that are harness.evaluation.nats.IGNORED.)

    Rows start anywhere in the split with equal probability (to one part in 2^32). The generator is
    counter-based (Salmon et al. 2011, Philox), keyed by (seed, step): any step's batch without the
    ones before. Its raw output is what numpy promises never to change.
    """
    first = step - step % STARTED
    starts = _starts(seed, first, rows, len(ids) - seq_len)[step - first]
    window = torch.from_numpy(ids[starts[:, None] + np.arange(seq_len + 1)].astype(np.int64))
    return window[:, :-1], window[:, 1:]


@lru_cache(maxsize=2)
def _starts(seed: int, first: int, rows: int, places: int) -> NDArray[np.int64]:
    """Where the rows of STARTED steps begin, `first` and those after it: (STARTED, rows)."""
    # As numpy's own integers: a list with a number from 2^63 on in it becomes one of floats.
    keys = np.array([[seed, first + step] for step in range(STARTED)], np.uint64)
    raw = np.stack([np.random.Philox(key=key).random_raw(rows) for key in keys])
    return (raw % np.uint64(places)).astype(np.int64)
