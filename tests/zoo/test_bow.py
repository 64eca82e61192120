"""The bag of words against makemore's formula, position by position."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.zoo_models import VOCAB, maker, random_ids
from zoo.bow import BoW


def by_hand(w: dict[str, Tensor], ids: list[int]) -> Tensor:
    """The logits at the last of `ids`."""
    embedded = [
        w["token_embedding.weight"][token] + w["position_embedding.weight"][position]
        for position, token in enumerate(ids)
    ]
    x = embedded[-1] + sum(embedded) / len(embedded)
    hidden = torch.tanh(w["expand.weight"] @ x + w["expand.bias"])
    x = x + w["projection.weight"] @ hidden + w["projection.bias"]
    return w["head.weight"] @ x + w["head.bias"]


@torch.no_grad()
def test_equals_the_formula() -> None:
    model = maker("bow", "model.n_embd=5", "model.n_hidden=7", "train.seq_len=12")()
    ids = random_ids(3, 12)
    logits = model(ids)
    for row in range(3):
        for last in range(12):
            expected = by_hand(model.state_dict(), ids[row, : last + 1].tolist())
            torch.testing.assert_close(logits[row, last], expected, rtol=0, atol=1e-10)


@torch.no_grad()
def test_equals_attention_with_equal_weights() -> None:
    """makemore computes the average as a softmax over equal scores."""
    model = maker("bow")()
    ids = random_ids(2, 40)
    w = model.state_dict()
    x = w["token_embedding.weight"][ids] + w["position_embedding.weight"][:40]
    scores = torch.zeros(40, 40, dtype=torch.float64)
    scores = scores.masked_fill(torch.ones(40, 40).tril() == 0, -torch.inf)
    x = x + scores.softmax(-1) @ x
    x = x + model.projection(torch.tanh(model.expand(x)))
    torch.testing.assert_close(model(ids), model.head(x), rtol=0, atol=1e-10)


def test_decodes_under_autocast() -> None:
    model = maker("bow")().float()
    ids = random_ids(2, 64)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        cache = model.init_cache(2)
        steps = [model(ids[:, [t]], cache) for t in range(64)]
        torch.testing.assert_close(torch.cat(steps, 1), model(ids), rtol=0.05, atol=0.1)


@pytest.mark.parametrize("changed", [{"block_size": 0}, {"n_embd": 0}, {"n_hidden": 0}])
def test_refuses(changed: dict[str, Any]) -> None:
    (name,) = changed
    with pytest.raises(ValueError, match=f"{name}=0"):
        BoW(VOCAB, **({"block_size": 8, "n_embd": 4, "n_hidden": 4} | changed))
