"""A user's own figures, some of them at fault."""

from __future__ import annotations

from os import system as foreign  # noqa: F401 - what is imported is not its own

import torch
from torch import Tensor

CALLS: list[str] = []


def accuracy(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    return logits_NV.argmax(-1) == targets_N


def greedy(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """Spoils whatever it can reach."""
    torch.manual_seed(len(CALLS))
    torch.rand(3)
    logits_NV.zero_()
    targets_N.zero_()
    return torch.ones(len(targets_N))


def late(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """Right in its first call alone."""
    CALLS.append("late")
    if len(CALLS) > 1:
        raise RuntimeError("boom\nand more")
    return torch.zeros(len(targets_N))


def misshapen(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    return logits_NV.mean()


def undefined(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    return torch.full((len(targets_N),), torch.nan)


def sober(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """Right whatever came before it."""
    return accuracy(logits_NV, targets_N)


def perplexity(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    return accuracy(logits_NV, targets_N)


class Figure:
    pass
