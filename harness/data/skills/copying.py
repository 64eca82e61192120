"""Copying from memory. R rows, C words that are copied or stored, A questions."""

from __future__ import annotations

import numpy as np

from harness.data.skills.draws import Draws
from harness.data.skills.task import Examples, Skill


class SelectiveCopying(Skill):
    """Selective copying (Gu & Dao 2023, arXiv 2312.00752; Jing et al. 2019): `copied` words lie
    anywhere among blanks; after | they are asked in their order. tokens: the number of words."""

    def __init__(
        self, length: int, longer: list[int], copied: int, tokens: int, examples: int,
        split: list[float],
    ) -> None:  # fmt: skip
        super().__init__(length, longer, examples, split)
        self._require(2 + 2 * copied, copied=copied, tokens=tokens)
        self._copied, self._tokens = copied, tokens
        self.words = [*(f"w{number}" for number in range(tokens)), ".", "|"]
        self.chance = 1 / tokens

    def draw(self, draws: Draws, rows: int, length: int) -> Examples:
        asked, blank, divider = length - 2 - self._copied, self._tokens, self._tokens + 1
        copied_RC = draws.below(self._tokens, rows, self._copied)
        at_RC = np.sort(draws.orders(rows, asked)[:, : self._copied], axis=1)
        ids_RN = np.full((rows, length - 1), blank)
        ids_RN[np.arange(rows)[:, None], at_RC] = copied_RC
        ids_RN[:, asked] = divider
        ids_RN[:, asked + 1 :] = copied_RC
        scored_RN = np.zeros(ids_RN.shape, bool)
        scored_RN[:, asked + 1 :] = True
        return ids_RN, scored_RN


class Compression(Skill):
    """Compression (Poli et al. 2024, arXiv 2403.17844, MAD): a whole text is to be kept at one
    place. There a decoder is given that place's output and a position, and finds the word. Here
    `stored` words begin an example; after blanks and a | come `asked` of their positions in any
    order, each followed by its word. tokens: the number of words."""

    def __init__(
        self, length: int, longer: list[int], stored: int, asked: int, tokens: int, examples: int,
        split: list[float],
    ) -> None:  # fmt: skip
        super().__init__(length, longer, examples, split)
        self._require(2 + stored + 2 * asked, stored=stored, asked=asked, tokens=tokens)
        if asked > stored:
            raise ValueError(f"asked={asked} must be at most stored={stored}")
        self._stored, self._asked, self._tokens = stored, asked, tokens
        names = (f"w{number}" for number in range(tokens))
        self.words = [*names, ".", "|", *(f"@{place}" for place in range(stored))]
        self.chance = 1 / tokens

    def draw(self, draws: Draws, rows: int, length: int) -> Examples:
        blank, divider, first_place = range(self._tokens, self._tokens + 3)
        begin = length - 1 - 2 * self._asked
        stored_RC = draws.below(self._tokens, rows, self._stored)
        places_RA = draws.orders(rows, self._stored)[:, : self._asked]
        ids_RN = np.full((rows, length - 1), blank)
        ids_RN[:, : self._stored] = stored_RC
        ids_RN[:, begin - 1] = divider
        ids_RN[:, begin::2] = first_place + places_RA
        ids_RN[:, begin + 1 :: 2] = np.take_along_axis(stored_RC, places_RA, 1)
        scored_RN = np.zeros(ids_RN.shape, bool)
        scored_RN[:, begin + 1 :: 2] = True
        return ids_RN, scored_RN
