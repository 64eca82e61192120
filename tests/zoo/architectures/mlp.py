"""The MLP's closed forms and mutants."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.zoo_models import Mutant, widened
from zoo.language_model import Cache, LanguageModel
from zoo.layers import window


def parameters(node: dict[str, Any], V: int) -> int:
    C, H, L, N = node["n_embd"], widened(node, "n_hidden"), node["n_layer"], node["context"]
    norm = {None: 0, "rms_norm": H, "layer_norm": 2 * H, "batch_norm": 2 * H}[node["norm"]]
    hidden = N * C * H + (L - 1) * H * H + L * (H * node["bias"] + norm)
    return V * C + hidden + (H + N * C * node["direct"]) * V + V


def forward_flops(node: dict[str, Any], V: int, T: int) -> float:
    C, H, L, N = node["n_embd"], widened(node, "n_hidden"), node["n_layer"], node["context"]
    return 2 * T * (N * C * H + (L - 1) * H * H + (H + N * C * node["direct"]) * V)


def _padded_behind(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    pad = functional.pad
    monkeypatch.setattr(window.F, "pad", lambda x, sides: pad(x, (*sides[:2], sides[3], sides[2])))


def _reshaped(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The study notes' way from (B, channels, T) to (B, T, channels)."""
    convolve = model.window.forward

    def forward(x: Tensor) -> Tensor:
        y_BHT = convolve(x)
        return y_BHT.reshape(y_BHT.shape[0], y_BHT.shape[2], y_BHT.shape[1]).mT

    model.window.forward = forward


def _forgets_the_ids(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    features = model.features

    def forgetful(ids: Tensor, cache: Cache | None = None) -> Tensor:
        if cache is not None:
            cache.tensors["ids"] = torch.zeros_like(cache.tensors["ids"])
        return features(ids, cache)

    model.features = forgetful  # type: ignore[method-assign]


def _past_off_by_one(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """One token too few is taken from the cache while the window fills."""
    advance = model.advance
    model.advance = lambda ids, cache: max(advance(ids, cache) - 1, 0)  # type: ignore


def _padding_is_a_token(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The zeros in the cache's ids taken for tokens."""
    advance = model.advance
    model.advance = lambda ids, cache: advance(ids, cache) + model.context  # type: ignore


def _statistics_of_the_batch(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model.norms.train()


def _dead_layer(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model.hidden[0].forward = lambda x: torch.zeros_like(x)


def _declares_one_less(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model.receptive_field = model.context - 1


BATCH_NORM = ("model.norm=batch_norm", "model.bias=false")
MUTANTS = [
    Mutant("padded behind the text", "causality", "mlp", _padded_behind),
    Mutant("reshaped, not transposed", "causality", "mlp", _reshaped),
    Mutant("statistics of the batch", "causality", "mlp", _statistics_of_the_batch, BATCH_NORM),
    Mutant("the cache's ids forgotten", "split", "mlp", _forgets_the_ids),
    Mutant("a cached id left out", "split", "mlp", _past_off_by_one),
    Mutant("padding is a token", "split", "mlp", _padding_is_a_token),
    Mutant("a layer left out", "gradient", "mlp", _dead_layer),
    Mutant("declares one token less", "receptive_field", "mlp", _declares_one_less),
]
