"""Associative recall: which value belongs to this key? R rows, P pairs, S slots of two words."""

from __future__ import annotations

import numpy as np

from harness.data.skills.draws import Draws
from harness.data.skills.task import Examples, Skill


class Recall(Skill):
    """Multi-query associative recall (Arora et al. 2023, arXiv 2312.04927). `pairs` keys and their
    values begin an example. Each key comes again later, and its value is asked. In between lie
    fillers, which are words of their own.

    keys, values, fillers: the number of words of each kind; those of one example's pairs are
    distinct. power: of the law by which a key comes again sooner rather than later; 1: anywhere.
    """

    def __init__(
        self, length: int, longer: list[int], pairs: int, keys: int, values: int, fillers: int,
        power: float, examples: int, split: list[float],
    ) -> None:  # fmt: skip
        super().__init__(length, longer, examples, split)
        self._require(1 + 4 * pairs, pairs=pairs, keys=keys, values=values, fillers=fillers)
        if pairs > min(keys, values):
            raise ValueError(f"pairs={pairs} needs as many keys={keys} and values={values}")
        if not power > 0:
            raise ValueError(f"power={power} must be above 0")
        self._pairs, self._keys, self._values, self._fillers = pairs, keys, values, fillers
        self._power = power
        kinds = (("k", keys), ("v", values), ("f", fillers))
        self.words = [f"{kind}{number}" for kind, count in kinds for number in range(count)]
        self.chance = 1 / values

    def draw(self, draws: Draws, rows: int, length: int) -> Examples:
        pairs, first_filler = self._pairs, self._keys + self._values
        keys_RP = draws.orders(rows, self._keys)[:, :pairs]
        values_RP = self._keys + draws.orders(rows, self._values)[:, :pairs]
        ids_RN = first_filler + draws.below(self._fillers, rows, length - 1)
        scored_RN = np.zeros(ids_RN.shape, bool)
        ids_RN[:, 0 : 2 * pairs : 2], ids_RN[:, 1 : 2 * pairs : 2] = keys_RP, values_RP
        slots = np.arange(1, (length - 1 - 2 * pairs) // 2 + 1, dtype=np.float64)
        slots_RP = draws.weighted_orders(rows, slots ** (self._power - 1))[:, :pairs]
        row, at_RP = np.arange(rows)[:, None], 2 * pairs + 2 * slots_RP
        ids_RN[row, at_RP], ids_RN[row, at_RP + 1] = keys_RP, values_RP
        scored_RN[row, at_RP + 1] = True
        return ids_RN, scored_RN


class NoisyRecall(Skill):
    """Noisy in-context recall (Poli et al. 2024, arXiv 2403.17844, MAD): an example is keys, each
    followed by its value in this example. A value is asked when its key comes again. A share
    `noise` of the pairs is replaced by two noise words.

    keys, values, noises: the number of words of each kind.
    """

    def __init__(
        self, length: int, longer: list[int], keys: int, values: int, noises: int, noise: float,
        examples: int, split: list[float],
    ) -> None:  # fmt: skip
        super().__init__(length, longer, examples, split)
        self._require(5, keys=keys, values=values, noises=noises)
        if not 0 <= noise < 1:
            raise ValueError(f"noise={noise} must be a share below 1")
        self._keys, self._values, self._noises, self._noise = keys, values, noises, noise
        kinds = (("k", keys), ("v", values), ("n", noises))
        self.words = [f"{kind}{number}" for kind, count in kinds for number in range(count)]
        self.chance = 1 / values

    def draw(self, draws: Draws, rows: int, length: int) -> Examples:
        slots, first_noise = (length - 1) // 2, self._keys + self._values
        values_RK = self._keys + draws.below(self._values, rows, self._keys)
        keys_RS = draws.below(self._keys, rows, slots)
        is_pair_RS = draws.shares(rows, slots) >= self._noise
        ids_RN = first_noise + draws.below(self._noises, rows, length - 1)
        scored_RN = np.zeros(ids_RN.shape, bool)
        end = 2 * slots
        key_RS, value_RS = ids_RN[:, 0:end:2], ids_RN[:, 1:end:2]  # views
        key_RS[is_pair_RS] = keys_RS[is_pair_RS]
        value_RS[is_pair_RS] = np.take_along_axis(values_RK, keys_RS, 1)[is_pair_RS]
        seen_RK = np.zeros((rows, self._keys), bool)
        row = np.arange(rows)
        for slot in range(slots):
            key_R, is_pair_R = keys_RS[:, slot], is_pair_RS[:, slot]
            scored_RN[:, 2 * slot + 1] = is_pair_R & seen_RK[row, key_R]
            seen_RK[row, key_R] |= is_pair_R
        return ids_RN, scored_RN
