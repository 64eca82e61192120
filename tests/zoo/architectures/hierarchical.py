"""The hierarchical network's closed forms and mutants."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.zoo_models import Mutant
from zoo.language_model import Cache, LanguageModel
from zoo.layers import window


def parameters(node: dict[str, Any], V: int) -> int:
    C, H, L = node["n_embd"], node["n_hidden"], node["n_layer"]
    norm = {None: 0, "rms_norm": H, "layer_norm": 2 * H, "batch_norm": 2 * H}[node["norm"]]
    return V * C + 2 * C * H + (L - 1) * 2 * H * H + L * (H * node["bias"] + norm) + H * V + V


def forward_flops(node: dict[str, Any], V: int, T: int) -> float:
    """A layer has its nodes at T positions and at those before the text that later ones need."""
    C, H, L = node["n_embd"], node["n_hidden"], node["n_layer"]
    flops = 0
    for layer in range(L):
        nodes = T + 2**L - 2 ** (layer + 1)
        flops += 2 * nodes * 2 * (H if layer else C) * H
    return flops + 2 * T * H * V


def _padded_behind(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    pad = functional.pad
    monkeypatch.setattr(window.F, "pad", lambda x, sides: pad(x, (*sides[:2], sides[3], sides[2])))


def _statistics_of_the_batch(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model.norms.train()


def _forgets_the_ids(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    features = model.features

    def forgetful(ids: Tensor, cache: Cache | None = None) -> Tensor:
        if cache is not None:
            cache.tensors["ids"] = torch.zeros_like(cache.tensors["ids"])
        return features(ids, cache)

    model.features = forgetful  # type: ignore[method-assign]


def _one_half_left_out(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The root sees its later half alone."""
    root = model.layers[-1]
    half = root.in_features // 2
    forward = root.forward
    root.forward = lambda x: forward(torch.cat([0 * x[..., :half], x[..., half:]], -1))


def _dead_layer(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model.layers[0].forward = lambda x: x.new_zeros(*x.shape[:-1], model.layers[0].out_features)


MUTANTS = [
    Mutant("padded behind the text", "causality", "hierarchical", _padded_behind),
    Mutant(
        "statistics of the batch", "causality", "hierarchical", _statistics_of_the_batch,
        ("model.norm=batch_norm", "model.bias=false"),
    ),
    Mutant("the cache's ids forgotten", "split", "hierarchical", _forgets_the_ids),
    Mutant("half a tree", "receptive_field", "hierarchical", _one_half_left_out),
    Mutant("a layer left out", "gradient", "hierarchical", _dead_layer),
]  # fmt: skip
