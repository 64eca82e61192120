"""Dyck languages: nested brackets. R rows, S brackets of a problem, D their depth."""

from __future__ import annotations

import numpy as np

from harness.data.skills.draws import Draws
from harness.data.skills.problems import Problems
from harness.data.skills.task import Examples


class Dyck(Problems):
    """Brackets of `kinds` kinds, nested at most `depth` deep (Hewitt et al. 2020, arXiv
    2010.07515): up to `brackets` begin a problem; after = those that close what is open are
    asked."""

    def __init__(
        self, length: int, longer: list[int], kinds: int, depth: int, brackets: int, examples: int,
        split: list[float],
    ) -> None:  # fmt: skip
        super().__init__(length, longer, examples, split)
        self._require(1, kinds=kinds, depth=depth, brackets=brackets)
        if depth < 2:
            raise ValueError(f"depth={depth} must be 2 or more")
        self._kinds, self._depth = kinds, depth
        self.chance = 1 / kinds
        names = [f"{side}{kind}" for side in "()" for kind in range(kinds)]
        self._require_problems(brackets, [*names, "="])

    def tokens(self, size: int) -> int:
        return size + 1 + self._depth

    def problem(self, draws: Draws, rows: int, size: int) -> Examples:
        kinds, row = self._kinds, np.arange(rows)
        open_RD, deep_R = np.zeros((rows, self._depth + 1), np.int64), np.zeros(rows, np.int64)
        ids = np.full((rows, self.tokens(size)), len(self.words) - 1)
        scored = np.zeros(ids.shape, bool)
        opens_RS, kinds_RS = draws.shares(rows, size) < 0.5, draws.below(kinds, rows, size)
        for at in range(size):
            least = 1 if at == size - 1 else 0  # of the last: something stays open
            opens_R = (opens_RS[:, at] | (deep_R <= least)) & (deep_R < self._depth)
            closed_R = kinds + open_RD[row, deep_R - 1]
            ids[:, at] = np.where(opens_R, kinds_RS[:, at], closed_R)
            open_RD[row, deep_R] = kinds_RS[:, at]  # of what is not opened it is written over
            deep_R = deep_R + np.where(opens_R, 1, -1)
        ids[:, size] = 2 * kinds
        for at in range(size + 1, ids.shape[1]):
            is_open_R = deep_R > 0
            ids[is_open_R, at] = kinds + open_RD[row, deep_R - 1][is_open_R]
            scored[:, at] = is_open_R
            deep_R = np.maximum(deep_R - 1, 0)
        return ids, scored
