"""Mamba-2's closed forms and mutants."""

from __future__ import annotations

from typing import Any

from tests.zoo.architectures.matrix_memory import mutants, zeroed
from tests.zoo_models import Mutant


def _sizes(node: dict[str, Any]) -> tuple[int, ...]:
    C, N = node["n_embd"], node["n_state"]
    E = node["expand"] * C
    return C, N, E, E // node["n_head_channels"]


def _linear(node: dict[str, Any]) -> int:
    C, N, E, H = _sizes(node)
    return C * (2 * E + 2 * N + H) + E * C


def parameters(node: dict[str, Any], V: int) -> int:
    C, N, E, H = _sizes(node)
    conv = (E + 2 * N) * (node["kernel_size"] + 1)
    block = _linear(node) + conv + 3 * H + C + E
    return V * C + node["n_layer"] * block + C + (0 if node["tie_weights"] else V * C)


def forward_flops(node: dict[str, Any], V: int, T: int) -> float:
    C, N, E, _ = _sizes(node)
    conv = (E + 2 * N) * node["kernel_size"]
    memory = T * (N + E)
    return 2 * T * (node["n_layer"] * (_linear(node) + conv + memory) + C * V)


MUTANTS = [
    *mutants("mamba2", "1.state"),
    Mutant("the convolution's past not kept", "split", "mamba2", zeroed("0.conv.inputs")),
]
