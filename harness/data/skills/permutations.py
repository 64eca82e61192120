"""State tracking. R rows, S elements of a problem."""

from __future__ import annotations

import itertools

import numpy as np

from harness.data.skills.draws import Draws
from harness.data.skills.problems import Problems
from harness.data.skills.task import Examples


class Permutations(Problems):
    """The word problem of the symmetric group (Merrill et al. 2024, arXiv 2404.08819): up to
    `steps` permutations of `objects` things, one after the other; after = their product is asked.

    A word like 201 puts thing 2 first, then 0 and 1. Five objects are the least whose group can't
    be solved; two are parity: 10 swaps them.
    """

    def __init__(
        self, length: int, longer: list[int], objects: int, steps: int, examples: int,
        split: list[float],
    ) -> None:  # fmt: skip
        super().__init__(length, longer, examples, split)
        self._require(1, objects=objects, steps=steps)
        if not 2 <= objects <= 6:
            raise ValueError(f"objects={objects} must lie between 2 and 6")
        group = list(itertools.permutations(range(objects)))
        numbers = {element: number for number, element in enumerate(group)}
        # after[a, b]: first a, then b.
        self._after = np.array(
            [[numbers[tuple(first[at] for at in second)] for second in group] for first in group]
        )
        self.chance = 1 / len(group)
        self._require_problems(steps, ["".join(map(str, element)) for element in group] + ["="])

    def tokens(self, size: int) -> int:
        return size + 2

    def problem(self, draws: Draws, rows: int, size: int) -> Examples:
        order = len(self._after)
        elements_RS = draws.below(order, rows, size)
        state_R = elements_RS[:, 0]
        for at in range(1, size):
            state_R = self._after[state_R, elements_RS[:, at]]
        equals_R = np.full(rows, order)
        ids = np.concatenate([elements_RS, equals_R[:, None], state_R[:, None]], axis=1)
        scored = np.zeros(ids.shape, bool)
        scored[:, -1] = True
        return ids, scored
