"""Addition with carried digits. R rows, S digits of a number."""

from __future__ import annotations

import numpy as np

from harness.data.skills.draws import Draws
from harness.data.skills.problems import Problems
from harness.data.skills.task import Examples

PLUS, EQUALS, END = 10, 11, 12


class Addition(Problems):
    """a + b = c ; with numbers of up to `digits` digits, leading zeros included. The digits of c
    are asked. What would be carried beyond is dropped, so that each of them is equally likely.

    lowest_first: whether numbers are written with their lowest digit first, in the order in which
    digits are carried.
    """

    def __init__(
        self, length: int, longer: list[int], digits: int, lowest_first: bool, examples: int,
        split: list[float],
    ) -> None:  # fmt: skip
        super().__init__(length, longer, examples, split)
        self._require(1, digits=digits)
        self._lowest_first = lowest_first
        self.chance = 0.1
        self._require_problems(digits, [*map(str, range(10)), "+", "=", ";"])

    def tokens(self, size: int) -> int:
        return 3 * size + 3

    def problem(self, draws: Draws, rows: int, size: int) -> Examples:
        numbers = draws.below(10, 2, rows, size)
        sums_RS = numbers.sum(axis=0)
        for at in range(size - 1):
            sums_RS[:, at + 1] += sums_RS[:, at] // 10
        order = slice(None) if self._lowest_first else slice(None, None, -1)
        a_RS, b_RS, c_RS = (each[:, order] for each in (*numbers, sums_RS % 10))
        plus, equals, end = (np.full((rows, 1), each) for each in (PLUS, EQUALS, END))
        ids = np.concatenate([a_RS, plus, b_RS, equals, c_RS, end], axis=1)
        scored = np.zeros(ids.shape, bool)
        scored[:, -1 - size : -1] = True
        return ids, scored
