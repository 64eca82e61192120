"""Random numbers as a pure function of a key."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


class Draws:
    """Numbers from Philox's raw output (Salmon et al. 2011), which numpy guarantees never to
    change, as it does not for its distributions. A key has two numbers below 2^64. apart: the same
    key has other numbers for each."""

    def __init__(self, first: int, second: int, *, apart: int = 0) -> None:
        key = np.array([first, second], np.uint64)
        self._philox = np.random.Philox(key=key, counter=apart << 200)

    def raw(self, *shape: int) -> NDArray[np.uint64]:
        return self._philox.random_raw(math.prod(shape)).reshape(shape)

    def below(self, count: int, *shape: int) -> NDArray[np.int64]:
        """Uniform in 0 … count - 1, up to one part in 2^32."""
        return (self.raw(*shape) % np.uint64(count)).astype(np.int64)

    def shares(self, *shape: int) -> NDArray[np.float64]:
        """Uniform in [0, 1)."""
        return (self.raw(*shape) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def orders(self, rows: int, count: int) -> NDArray[np.int64]:
        """Random orders of 0 … count - 1, (rows, count)."""
        return np.argsort(self.raw(rows, count), axis=1, kind="stable")

    def weighted_orders(self, rows: int, weights: NDArray[np.float64]) -> NDArray[np.int64]:
        """Orders, (rows, len(weights)), in which each next one is drawn by its weight among those
        that are left: by Gumbel's noise (Efraimidis & Spirakis 2006)."""
        noise = -np.log(-np.log(np.clip(self.shares(rows, len(weights)), 2.0**-53, None)))
        return np.argsort(-(np.log(weights) + noise), axis=1, kind="stable")
