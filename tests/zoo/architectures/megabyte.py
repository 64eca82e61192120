"""MEGABYTE's closed forms and mutants."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.zoo_models import Mutant
from zoo.language_model import Cache, LanguageModel
from zoo.layers import segments


def parameters(node: dict[str, Any], V: int) -> int:
    P, W, C, bias = node["patch_size"], node["n_embd_global"], node["n_embd_local"], node["bias"]
    D = W // P

    def blocks(layers: int, width: int) -> int:
        """Blocks of 12·width² weights, 9·width biases and two norms, and the norm at their end."""
        norm = width + width * bias
        return layers * (12 * width**2 + 9 * width * bias + 2 * norm) + norm

    embed = V * D + node["block_size"] * D + sum(k * D * D + D for k in node["kernel_sizes"])
    begin = W + C  # the start patch and the start embedding
    head = 0 if node["tie_weights"] else V * C
    stacks = blocks(node["n_layer_global"], W) + blocks(node["n_layer_local"], C)
    return embed + begin + stacks + D * C + V * C + head


def forward_flops(node: dict[str, Any], V: int, T: int) -> float:
    P, W, C, r = (
        node[key] for key in ("patch_size", "n_embd_global", "n_embd_local", "cross_patch")
    )
    D = W // P
    K = T // P + 1  # global steps, the start patch's among them
    N = T + 1  # local positions, that of the very first token among them
    whole, rest = divmod(N, P)
    pairs = whole * P * (P + r) + rest * (rest + r)  # of queries and keys
    if r:  # the first patch has none before it
        pairs -= r * min(N, P)
    convolutions = sum(2 * T * k * D * D for k in node["kernel_sizes"])
    global_ = node["n_layer_global"] * (24 * K * W * W + 4 * K * K * W) + 2 * K * P * D * C
    local = node["n_layer_local"] * (24 * N * C * C + 4 * pairs * C)
    return convolutions + global_ + local + 2 * T * V * C


def _unshifted(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Global step k reads patch k, which it is there to predict."""
    patches = model._patches
    model._patches = lambda *past: patches(*past).roll(-1, 1)  # type: ignore


def _no_start_patch(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    patches = model._patches

    def without(x_BTC: Tensor, past: int, cache: Cache | None) -> Tensor:
        patches_BKC = patches(x_BTC, past, cache)
        patches_BKC[:, :1] = patches_BKC[:, :1] * (past > 0)
        return patches_BKC

    model._patches = without  # type: ignore[method-assign]


def _no_mask(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within its own patch, too, a position sees what comes after it."""
    monkeypatch.setattr(
        segments, "attend", lambda q, k, v, dropout: F.scaled_dot_product_attention(q, k, v)
    )


def _previous_patch_of_the_next(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and values of the patch after instead of the patch before."""
    attend = segments.attend_in_segments

    def ahead(q: Tensor, k: Tensor, v: Tensor, *where: Any) -> Tensor:
        overlap = where[2]
        return attend(q, k.roll(-overlap, 2), v.roll(-overlap, 2), *where)

    monkeypatch.setattr(segments, "attend_in_segments", ahead)


def _position_off_by_one(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the cache alone: the place of a token in its window."""
    table = model.position_embedding
    table.forward = lambda at: table.weight[at - int(at[0] > 0)]  # type: ignore


def _local_position_off_by_one(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the cache alone: the place of a position in its patch."""
    attend = segments.attend_in_segments
    monkeypatch.setattr(
        segments,
        "attend_in_segments",
        lambda q, k, v, start, *rest: attend(q, k, v, start - int(start > 1), *rest),
    )


def _forgets_the_patch_under_way(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    patches = model._patches

    def forgetful(x_BTC: Tensor, past: int, cache: Cache | None) -> Tensor:
        if cache is not None:
            cache.tensors["patch"].zero_()
        return patches(x_BTC, past, cache)

    model._patches = forgetful  # type: ignore[method-assign]


def _one_patch_back(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The global transformer sees the last patch alone."""
    for block in model.global_blocks:
        block.attention.band = 1


def _frozen_slices(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    context = model._context
    model._context = lambda *past: context(*past).detach()  # type: ignore[method-assign]


def _half_a_patch(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first half of a patch never reaches the global transformer."""
    patches = model._patches

    def half(x_BTC: Tensor, past: int, cache: Cache | None) -> Tensor:
        patches_BKC = patches(x_BTC, past, cache)
        keep = torch.arange(patches_BKC.shape[2]) >= patches_BKC.shape[2] // 2
        return patches_BKC * keep

    model._patches = half  # type: ignore[method-assign]


CROSS = ("model.cross_patch=2", "train.seq_len=24")

MUTANTS = [
    Mutant("an unshifted patch", "causality", "megabyte", _unshifted),
    Mutant("no start patch", "gradient", "megabyte", _no_start_patch),
    Mutant("no mask in a patch", "causality", "megabyte", _no_mask),
    Mutant("no mask across patches", "causality", "megabyte", _no_mask, CROSS),
    Mutant("the patch after", "causality", "megabyte", _previous_patch_of_the_next, CROSS),
    Mutant("a cached position off by one", "split", "megabyte", _position_off_by_one),
    Mutant("a cached place off by one", "split", "megabyte", _local_position_off_by_one),
    Mutant("the patch under way is lost", "split", "megabyte", _forgets_the_patch_under_way),
    Mutant("one patch back", "receptive_field", "megabyte", _one_patch_back),
    Mutant("half a patch", "receptive_field", "megabyte", _half_a_patch),
    Mutant("no gradient through the slices", "gradient", "megabyte", _frozen_slices),
]
