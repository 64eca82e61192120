"""Tasks whose examples are several problems in a row."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from harness.data.skills.draws import Draws
from harness.data.skills.task import Examples, Skill

BLANK = "."  # the last word; fills what no problem fits in


class Problems(Skill):
    """Problems of random sizes from 1 to `largest`, which the rows of one draw share. Of longer
    examples all are larger than in training: up to as many times as the example is longer."""

    def _require_problems(self, largest: int, words: list[str]) -> None:
        """Raises ValueError for lengths that don't hold the largest problem."""
        self._largest, self.words = largest, [*words, BLANK]
        self._require(1 + self.tokens(largest))
        for length in self.longer:
            if self.tokens(largest + 1) >= length or self._up_to(length) <= largest:
                raise ValueError(f"longer={self.longer}: {length} holds no larger problem")

    def _up_to(self, length: int) -> int:
        return self._largest * length // self.length

    @abstractmethod
    def tokens(self, size: int) -> int:
        """How many words a problem takes."""

    @abstractmethod
    def problem(self, draws: Draws, rows: int, size: int) -> Examples:
        """Problems of one size, (R, tokens) each."""

    def draw(self, draws: Draws, rows: int, length: int) -> Examples:
        smallest = 1 if length == self.length else self._largest + 1
        sizes = range(smallest, self._up_to(length) + 1)
        left, parts = length - 1, []
        while fitting := [size for size in sizes if self.tokens(size) <= left]:
            size = fitting[int(draws.below(len(fitting), 1)[0])]
            parts.append(self.problem(draws, rows, size))
            left -= self.tokens(size)
        blanks = np.full((rows, left), len(self.words) - 1)
        ids_RN = np.concatenate([*(ids for ids, _ in parts), blanks], axis=1)
        scored_RN = np.concatenate([*(scored for _, scored in parts), blanks < 0], axis=1)
        return ids_RN, scored_RN
