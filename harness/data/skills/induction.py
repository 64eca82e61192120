"""Induction: what came after this word before? R rows, S slots of two words."""

from __future__ import annotations

import numpy as np

from harness.data.skills.draws import Draws
from harness.data.skills.task import Examples, Skill


class Induction(Skill):
    """Induction heads (Olsson et al. 2022, arXiv 2209.11895; as a task Fu et al. 2023, arXiv
    2212.14052): somewhere in random words stands a trigger, !, and a word after it. The trigger
    comes again `repeats` times, always with that word, which is asked. tokens: the number of words.
    """

    def __init__(
        self, length: int, longer: list[int], repeats: int, tokens: int, examples: int,
        split: list[float],
    ) -> None:  # fmt: skip
        super().__init__(length, longer, examples, split)
        self._require(1 + 2 * (repeats + 1), repeats=repeats, tokens=tokens)
        self._repeats, self._tokens = repeats, tokens
        self.words = [*(f"w{number}" for number in range(tokens)), "!"]
        self.chance = 1 / tokens

    def draw(self, draws: Draws, rows: int, length: int) -> Examples:
        ids_RN = draws.below(self._tokens, rows, length - 1)
        answers_R1 = draws.below(self._tokens, rows, 1)
        slots_RS = draws.orders(rows, (length - 1) // 2)[:, : self._repeats + 1]
        row, at_RS = np.arange(rows)[:, None], 2 * np.sort(slots_RS, axis=1)
        ids_RN[row, at_RS], ids_RN[row, at_RS + 1] = self._tokens, answers_R1
        scored_RN = np.zeros(ids_RN.shape, bool)
        scored_RN[row, at_RS[:, 1:] + 1] = True
        return ids_RN, scored_RN
