"""Gated DeltaNet's closed forms and mutants."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.zoo.architectures.matrix_memory import mutants, zeroed
from tests.zoo_models import Mutant
from zoo.language_model import LanguageModel
from zoo.layers import matrix_memory


def _sizes(node: dict[str, Any]) -> tuple[int, ...]:
    C = node["n_embd"]
    inner = node["n_inner"] or 8 * -(-C // 3)
    return C, node["n_head"], node["n_key"], node["n_value"], inner


def _layers(node: dict[str, Any]) -> tuple[int, int]:
    """How many with the delta rule, and with attention."""
    every = node["attention_every"]
    attention = node["n_layer"] // every if every else 0
    return node["n_layer"] - attention, attention


def _linear(node: dict[str, Any]) -> tuple[int, int, int]:
    """The weights of the linear maps of a delta rule, of attention and of SwiGLU."""
    C, H, N, D, inner = _sizes(node)
    return C * H * (2 * N + 2 * D + 2) + H * D * C, 4 * C * C, 3 * C * inner


def parameters(node: dict[str, Any], V: int) -> int:
    C, H, N, D, _ = _sizes(node)
    delta, attention, feed_forward = _linear(node)
    delta += H * (2 * N + D) * node["kernel_size"] + 2 * H + D
    attention += 2 * C // H
    of_delta, of_attention = _layers(node)
    blocks = of_delta * delta + of_attention * attention
    blocks += node["n_layer"] * (feed_forward + 2 * C)
    return V * C + blocks + C + (0 if node["tie_weights"] else V * C)


def forward_flops(node: dict[str, Any], V: int, T: int) -> float:
    """In one chunk of T <= 64. A triangular system is half of a product."""
    C, H, N, D, _ = _sizes(node)
    delta, attention, feed_forward = _linear(node)
    delta += H * (2 * N + D) * node["kernel_size"] + T * H * (2 * N + D + D / 2)
    attention += 2 * T * C
    of_delta, of_attention = _layers(node)
    blocks = of_delta * delta + of_attention * attention + node["n_layer"] * feed_forward
    return 2 * T * (blocks + C * V)


def _solved_upwards(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def solve(system: Tensor, sides: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(system.mT, sides, upper=True, unitriangular=True)

    monkeypatch.setattr(matrix_memory, "_solve", solve)


def _not_removed(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a chunk nothing is replaced: chunks of other lengths differ."""
    monkeypatch.setattr(matrix_memory, "_solve", lambda system, sides: sides)


MUTANTS = [
    *mutants("gated_deltanet", "1.state"),
    Mutant("the system solved from the end", "causality", "gated_deltanet", _solved_upwards),
    Mutant("nothing removed within a chunk", "split", "gated_deltanet", _not_removed),
    Mutant("the convolutions' past not kept", "split", "gated_deltanet", zeroed("0.conv.inputs")),
    Mutant("the band's keys not kept", "split", "gated_deltanet_hybrid", zeroed("3.keys")),
]
