"""The ladder's closed forms and mutants."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.zoo_models import Mutant
from zoo.language_model import LanguageModel


def parameters(node: dict[str, Any], V: int) -> int:
    C, L, T = node["n_embd"], node["n_layer"], node["block_size"]
    block = 3 * C * C
    block += (C * C + C) * node["projection"]
    block += (8 * C * C + 5 * C) * node["feed_forward"]
    norms = (L + 1 + L * node["feed_forward"]) * node["norm"]
    return V * C + T * C + L * block + norms * 2 * C + V * C + V


def forward_flops(node: dict[str, Any], V: int, T: int) -> float:
    C, L = node["n_embd"], node["n_layer"]
    maps = 3 + node["projection"] + 8 * node["feed_forward"]
    return 2 * T * (L * maps * C * C + V * C) + 4 * L * T * T * C


def _every_layer_has_the_first_ones_past(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zoo.layers.attention import KeyValues

    of = KeyValues.of
    monkeypatch.setattr(KeyValues, "of", lambda cache, layer, pos: of(cache, 0, pos))


def _no_attention(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    for block in model.blocks:
        block.attention.forward = lambda x, past: torch.zeros_like(x)


MUTANTS = [
    Mutant("one past for all", "split", "ladder", _every_layer_has_the_first_ones_past),
    Mutant("no attention", "receptive_field", "ladder", _no_attention),
]
