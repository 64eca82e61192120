"""GPT's closed forms and mutants."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from harness import metrics
from tests.zoo_models import Mutant
from zoo.language_model import Cache, LanguageModel
from zoo.layers import attention


def parameters(node: dict[str, Any], V: int) -> int:
    C, L, T, bias = node["n_embd"], node["n_layer"], node["block_size"], int(node["bias"])
    attend = 4 * C * C + 4 * C * bias
    feed_forward = 8 * C * C + 5 * C * bias
    norm = C + C * bias
    head = 0 if node["tie_weights"] else V * C
    return V * C + T * C + L * (attend + feed_forward + 2 * norm) + norm + head


def forward_flops(node: dict[str, Any], V: int, T: int) -> float:
    C, L = node["n_embd"], node["n_layer"]
    return 2 * T * (12 * L * C * C + V * C) + 4 * L * T * T * C


def _softmax_over_queries(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The study notes' leak: `softmax(dim=1)` of (B, T, T) weights."""

    def attend(q: Tensor, k: Tensor, v: Tensor, *options: object) -> Tensor:
        weights = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        mask = torch.ones(weights.shape[-2:], dtype=torch.bool).tril(k.shape[2] - q.shape[2])
        return weights.masked_fill(~mask, -torch.inf).softmax(-2) @ v

    monkeypatch.setattr(attention, "attend", attend)


def _no_mask(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        attention, "attend", lambda q, k, v, *options: F.scaled_dot_product_attention(q, k, v)
    )


def _mask_of_the_top_left(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's is_causal aligns the mask to the first key: wrong as soon as there is a past."""
    monkeypatch.setattr(
        attention,
        "attend",
        lambda q, k, v, *options: F.scaled_dot_product_attention(q, k, v, is_causal=True),
    )


def _positions_forget_the_past(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    advance = model.advance
    model.advance = lambda ids, cache: advance(ids, cache) * 0  # type: ignore[method-assign]


def _position_off_by_one(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    advance = model.advance

    def late(ids: Tensor, cache: Cache | None) -> int:
        return advance(ids, cache) - int(cache is not None and cache.pos > ids.shape[1])

    model.advance = late  # type: ignore[method-assign]


def _unbounded(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    block_size = model.block_size
    table = model.position_embedding
    table.forward = lambda positions: table.weight[positions % block_size]  # type: ignore
    model.advance = lambda ids, cache: 0  # type: ignore[method-assign]


def _windows_overlap(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        metrics,
        "windows",
        lambda n, size, stride: [(s, size) for s in range(0, n - size + 1, stride)],
    )


def _scores_the_input(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    nats = metrics.nats_BT
    monkeypatch.setattr(
        metrics, "nats_BT", lambda logits, targets: nats(logits, targets.roll(1, 1))
    )


def _dead_layer(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model.blocks[1].feed_forward.forward = lambda x: torch.zeros_like(x)


MUTANTS = [
    Mutant("softmax over the queries", "causality", "gpt", _softmax_over_queries),
    Mutant("no mask", "causality", "gpt", _no_mask),
    Mutant("mask aligned to the first key", "split", "gpt", _mask_of_the_top_left),
    Mutant("positions forget the past", "split", "gpt", _positions_forget_the_past),
    Mutant("a cached position off by one", "split", "gpt", _position_off_by_one),
    Mutant("no limit", "block_size", "gpt", _unbounded),
    Mutant("windows score tokens twice", "score", "gpt", _windows_overlap),
    Mutant("targets not shifted", "score", "gpt", _scores_the_input),
    Mutant("a layer left out", "gradient", "gpt", _dead_layer),
]
