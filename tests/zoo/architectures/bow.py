"""The bag of words' closed forms and mutants."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.zoo_models import Mutant, widened
from zoo.language_model import Cache, LanguageModel


def parameters(node: dict[str, Any], V: int) -> int:
    C, H, N = node["n_embd"], widened(node, "n_hidden"), node["block_size"]
    return V * C + N * C + (C * H + H) + (H * C + C) + (C * V + V)


def forward_flops(node: dict[str, Any], V: int, T: int) -> float:
    C, H = node["n_embd"], widened(node, "n_hidden")
    return 2 * T * (2 * C * H + C * V)


def _averages_all(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """makemore's average without its mask."""
    monkeypatch.setattr(
        torch.Tensor, "cumsum", lambda x, dim: x.sum(dim, keepdim=True).expand_as(x)
    )


def _last_two(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sum of a sliding window instead of all."""
    monkeypatch.setattr(
        torch.Tensor, "cumsum", lambda x, dim: x + x.roll(1, dim) * (torch.arange(x.shape[dim]) > 0)
        .to(x)[:, None],
    )  # fmt: skip


def _sum_not_kept(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    features = model.features

    def forgetful(ids: Tensor, cache: Cache | None = None) -> Tensor:
        if cache is not None:
            cache.tensors["sum"] = torch.zeros_like(cache.tensors["sum"])
        return features(ids, cache)

    model.features = forgetful  # type: ignore[method-assign]


def _count_off_by_one(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The present token not counted, once there is a past."""
    advance = model.advance
    model.advance = lambda ids, cache: max(advance(ids, cache) - 1, 0)  # type: ignore


def _dead_layer(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model.projection.forward = lambda x: torch.zeros(())


MUTANTS = [
    Mutant("averages the whole text", "causality", "bow", _averages_all),
    Mutant("forgets all but two", "receptive_field", "bow", _last_two),
    Mutant("the sum not kept", "split", "bow", _sum_not_kept),
    Mutant("the count off by one", "split", "bow", _count_off_by_one),
    Mutant("a layer left out", "gradient", "bow", _dead_layer),
]
