"""mLSTM's closed forms and mutants."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from tests.zoo.architectures.matrix_memory import mutants
from tests.zoo_models import Mutant
from zoo.language_model import Cache, LanguageModel


def _sizes(node: dict[str, Any]) -> tuple[int, ...]:
    C = node["n_embd"]
    inner = node["n_inner"] or 8 * -(-C // 3)
    return C, node["n_head"], node["n_key"], node["n_value"], inner


def _linear(node: dict[str, Any]) -> int:
    C, H, N, D, inner = _sizes(node)
    return C * H * (2 * N + 2 * D + 2) + H * D * C + 3 * C * inner


def parameters(node: dict[str, Any], V: int) -> int:
    C, H, _, D, _ = _sizes(node)
    block = _linear(node) + 2 * H + H * D + 2 * C
    return V * C + node["n_layer"] * block + C + (0 if node["tie_weights"] else V * C)


def forward_flops(node: dict[str, Any], V: int, T: int) -> float:
    """In one chunk of T <= 64."""
    C, H, N, D, _ = _sizes(node)
    return 2 * T * (node["n_layer"] * (_linear(node) + T * H * (N + D + 1)) + C * V)


def _normalizer_lost(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """With gates that are open enough for it to matter."""
    features = model.features
    for block in model.blocks:
        block.input_bias.data += 12.0

    def changed(ids: Tensor, cache: Cache | None = None) -> Tensor:
        if cache is not None:
            cache.tensors["0.state"] = cache.tensors["0.state"].clone()
            cache.tensors["0.state"][..., -1] = 0.0
        return features(ids, cache)

    model.features = changed  # type: ignore[method-assign]


MUTANTS = [
    *mutants("mlstm", "1.state"),
    Mutant("the normalizer not kept", "split", "mlstm", _normalizer_lost),
]
