"""RWKV-7's closed forms and mutants."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import zoo.rwkv7
from tests.zoo.architectures.matrix_memory import zeroed
from tests.zoo_models import Mutant
from zoo.language_model import Cache, LanguageModel


def _linear(node: dict[str, Any]) -> int:
    """Of all layers. The first has no value mix."""
    C, R, L = node["n_embd"], node["n_rank"], node["n_layer"]
    inner = node["n_inner"] or 4 * C
    return L * (4 * C * C + 4 * 2 * C * R + 2 * C * inner) - 2 * C * R


def parameters(node: dict[str, Any], V: int) -> int:
    C, L = node["n_embd"], node["n_layer"]
    vectors = 6 + 6 + 2 + 2 + 1 + 2  # mixes, biases and scales, norms; of the channels: mix, norm
    return V * C + _linear(node) + L * vectors * C - C + 4 * C + C * V


def forward_flops(node: dict[str, Any], V: int, T: int) -> float:
    """In one chunk of T <= 64: seven products over the pairs and half a one."""
    C, L = node["n_embd"], node["n_layer"]
    return 2 * T * (_linear(node) + L * 7.5 * T * C + C * V)


def _shifted_from_behind(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def after(x: Tensor, cache: Cache | None, name: str) -> Tensor:
        return torch.cat([x[:, 1:], x[:, -1:]], dim=1)

    monkeypatch.setattr(zoo.rwkv7, "_before", after)


def _state_upside_down(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The decay runs over the values' channels instead of the keys'."""
    memory = zoo.rwkv7.generalized_delta_memory

    def turned(*tensors: Tensor | None, by: str) -> tuple[Tensor, Tensor | None]:
        *given, state = tensors
        y, after = memory(*given, None if state is None else state.mT, by=by)
        return y, None if after is None else after.mT.flip(-1)

    monkeypatch.setattr(zoo.rwkv7, "generalized_delta_memory", turned)


MUTANTS = [
    Mutant("the state not kept", "split", "rwkv7", zeroed("1.time.state")),
    Mutant("the state turned", "split", "rwkv7", _state_upside_down),
    Mutant("the input before not kept", "split", "rwkv7", zeroed("0.channels.last")),
    Mutant("shifted the wrong way", "causality", "rwkv7", _shifted_from_behind),
]
