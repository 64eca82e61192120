"""The level of each try, so that many tries don't win by luck.

e-LOND (Xu & Ramdas 2024, "Online multiple testing with e-values", AISTATS): the t-th try is judged
at the level α · γ_t · (1 + the number of tries found better before), where γ_1 + γ_2 + … = 1. Then
the expected share of false ones among all that were found better (the false discovery rate) is at
most α at any time, however the tries depend on one another: each is made from what was learnt from
those before, and all are scored on one text. LORD++ and SAFFRON (Ramdas, Zrnic, Wainwright & Jordan
2018, ICML) have more power, but need p-values that are independent, or valid given all of the past.

Only "better" counts as found: else trying what is sure to be worse would buy a higher level.
"""

from __future__ import annotations

ALPHA = 0.05


def level_of_try(number: int, found_before: int) -> float:
    """number: from 1. found_before: tries that were found better before this one began."""
    return ALPHA * share_of_try(number) * (found_before + 1)


def share_of_try(number: int) -> float:
    """γ: 1/2, 1/6, 1/12, …; the sum of the first n is n / (n + 1)."""
    return 1 / (number * (number + 1))
