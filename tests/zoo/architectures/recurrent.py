"""The closed forms of the recurrent nets, and mutants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.zoo_models import Mutant, widened
from zoo.language_model import Cache, LanguageModel

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def _weights(node: dict[str, Any]) -> int:
    C, H, L = node["n_embd"], widened(node, "n_hidden"), node["n_layer"]
    return GATES[node["_target_"].rpartition(".")[2]] * (C * H + (2 * L - 1) * H * H)


def parameters(node: dict[str, Any], V: int) -> int:
    C, H, L = node["n_embd"], widened(node, "n_hidden"), node["n_layer"]
    biases = GATES[node["_target_"].rpartition(".")[2]] * 2 * L * H
    return V * C + _weights(node) + biases + H * V + V


def forward_flops(node: dict[str, Any], V: int, T: int) -> float:
    return 2 * T * (_weights(node) + widened(node, "n_hidden") * V)


def _before_each_call(change: Callable[[Cache], None]) -> Callable[..., None]:
    """A mutant that does `change` to every cache it is given."""

    def apply(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
        features = model.features

        def changed(ids: Tensor, cache: Cache | None = None) -> Tensor:
            if cache is not None:
                change(cache)
            return features(ids, cache)

        model.features = changed  # type: ignore[method-assign]

    return apply


def _zero(name: str) -> Callable[[Cache], None]:
    def change(cache: Cache) -> None:
        cache.tensors[name] = torch.zeros_like(cache.tensors[name])

    return change


def _swap_layers(cache: Cache) -> None:
    cache.tensors["hidden"] = cache.tensors["hidden"].flip(1)


def _swap_states(cache: Cache) -> None:
    tensors = cache.tensors
    tensors["hidden"], tensors["cell"] = tensors["cell"], tensors["hidden"]


def _backwards(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    run = model.layers[0].forward

    def forward(x: Tensor, *state: Tensor) -> tuple[Tensor, Tensor]:
        y, last = run(x.flip(1), *state)
        return y.flip(1), last

    model.layers[0].forward = forward


def _time_first(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state passes from sequence to sequence of the batch instead of along each."""
    for layer in model.layers:
        layer.batch_first = False


MUTANTS = [
    Mutant("runs backwards", "causality", "rnn", _backwards),
    Mutant("time first", "receptive_field", "rnn", _time_first),
    Mutant("the state not kept", "split", "rnn", _before_each_call(_zero("hidden"))),
    Mutant("the layers' states swapped", "split", "gru", _before_each_call(_swap_layers)),
    Mutant("the cell state not kept", "split", "lstm", _before_each_call(_zero("cell"))),
    Mutant("hidden and cell state swapped", "split", "lstm", _before_each_call(_swap_states)),
]
