"""Perceiver AR's closed forms and mutants."""

from __future__ import annotations

from typing import Any

import pytest
import torch.nn.functional as F
from torch import Tensor

from tests.zoo_models import Mutant
from zoo import perceiver_ar
from zoo.language_model import LanguageModel
from zoo.layers import segments


def parameters(node: dict[str, Any], V: int) -> int:
    C, L, bias = node["n_embd"], node["n_layer"], int(node["bias"])
    norm = C + C * bias
    block = 12 * C * C + 9 * C * bias + 2 * norm
    read = block + norm  # one more norm: latents and context have each their own
    latent, head = C * C + C * bias, V * C + V * bias
    return V * C + node["block_size"] * C + latent + read + L * block + norm + head


def forward_flops(node: dict[str, Any], V: int, T: int) -> float:
    C, L, N = node["n_embd"], node["n_layer"], node["n_latent"]
    whole, rest = divmod(T, N)
    pairs = whole * N * N + rest * rest  # of latents
    linear = C * C + 12 * C * C * (1 + L) + V * C
    return 2 * T * linear + 4 * T * T * C + 4 * L * pairs * C


def _no_mask(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        perceiver_ar, "attend", lambda q, k, v, dropout: F.scaled_dot_product_attention(q, k, v)
    )


def _no_mask_of_latents(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        segments, "attend", lambda q, k, v, dropout: F.scaled_dot_product_attention(q, k, v)
    )


def _reads_the_latents_alone(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The context is no longer than the latents' own group."""
    monkeypatch.setattr(
        perceiver_ar,
        "attend",
        lambda q, k, v, dropout: segments.attend_in_segments(
            q, k, v, k.shape[2] - q.shape[2], model.blocks[0].attention.segment
        ),
    )


def _position_off_by_one(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the cache alone: the place of a token in its window."""
    table = model.position_embedding
    table.forward = lambda at: table.weight[at - int(at[0] > 0)]  # type: ignore


def _group_off_by_one(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the cache alone: the place of a latent in its group."""
    attend = segments.attend_in_segments
    monkeypatch.setattr(
        segments,
        "attend_in_segments",
        lambda q, k, v, start, *rest: attend(q, k, v, start - int(start > 0), *rest),
    )


def _always_training(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Context dropout goes on in evaluation."""
    model.read.context_dropout = 0.5
    model.read.train()
    model.read.train = lambda mode=True: model.read


def _sees_one_token_less(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first token of a window is not part of the context."""

    def attend(q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        mask = (q.new_ones(q.shape[2], k.shape[2]) > 0).tril(k.shape[2] - q.shape[2])
        mask[:, 0] = k.shape[2] == q.shape[2] == 1
        mask[0, 0] |= k.shape[2] == q.shape[2]
        return F.scaled_dot_product_attention(q, k, v, mask)

    monkeypatch.setattr(perceiver_ar, "attend", attend)


MUTANTS = [
    Mutant("no mask over the context", "causality", "perceiver_ar", _no_mask),
    Mutant("no mask over the latents", "causality", "perceiver_ar", _no_mask_of_latents),
    Mutant("reads its latents alone", "receptive_field", "perceiver_ar", _reads_the_latents_alone),
    Mutant("sees one token less", "receptive_field", "perceiver_ar", _sees_one_token_less),
    Mutant("a cached position off by one", "split", "perceiver_ar", _position_off_by_one),
    Mutant("a cached group off by one", "split", "perceiver_ar", _group_off_by_one),
    Mutant("dropout in evaluation", "score", "perceiver_ar", _always_training),
]
