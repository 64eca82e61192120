"""GPT's closed forms and mutants."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.evaluation import score as metrics
from tests.zoo_models import Mutant
from zoo import gpt
from zoo.language_model import Cache, LanguageModel
from zoo.layers import attention, experts


def parameters(node: dict[str, Any], V: int) -> int:
    return _parameters(node, V, node["n_expert"])


def active_parameters(node: dict[str, Any], V: int) -> int:
    """With the experts of one token."""
    return _parameters(node, V, node["n_expert_active"])


def _parameters(node: dict[str, Any], V: int, count: int | None) -> int:
    C, L, T, bias = node["n_embd"], node["n_layer"], node["block_size"], int(node["bias"])
    D, kv = C // node["n_head"], _kv_width(node)
    expanded, inner = _inner_widths(node)
    attend = C * (C + 2 * kv) + (C + 2 * kv) * bias + C * C + C * bias
    attend += 2 * D * node["qk_norm"]
    feed_forward = C * expanded + expanded * bias + inner * C + C * bias
    if node["n_expert"]:
        feed_forward = count * feed_forward + C * node["n_expert"]
    norm = C if node["norm"] == "rms_norm" else C + C * bias
    norms = 2 * L + (not node["post_norm"])
    kind = node["positions"] or ("learned" if node["rotary_theta"] is None else "rope")
    positions = T * C * (kind == "learned")
    head = 0 if node["tie_weights"] else V * C
    return V * C + positions + L * (attend + feed_forward) + norms * norm + head


def forward_flops(node: dict[str, Any], V: int, T: int) -> float:
    """Banded attention computes all T·T weights, too, and masks them."""
    C, L = node["n_embd"], node["n_layer"]
    expanded, inner = _inner_widths(node)
    feed_forward = C * expanded + inner * C
    if node["n_expert"]:
        feed_forward = node["n_expert_active"] * feed_forward + C * node["n_expert"]
    weights = C * (C + 2 * _kv_width(node)) + C * C + feed_forward
    return 2 * T * (L * weights + V * C) + 4 * L * T * T * C


def _kv_width(node: dict[str, Any]) -> int:
    return node["n_embd"] // node["n_head"] * (node["n_kv_head"] or node["n_head"])


def _inner_widths(node: dict[str, Any]) -> tuple[int, int]:
    """Out of the feed-forward's first map, and into its second."""
    C, inner = node["n_embd"], node["n_inner"]
    if node["activation"] == "swiglu":
        inner = inner or -(-8 * C // 3 // 8) * 8
        return 2 * inner, inner
    return inner or 4 * C, inner or 4 * C


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
    score = metrics.score_nats
    monkeypatch.setattr(
        metrics,
        "score_nats",
        lambda model, x, targets, measure: score(model, x, targets.roll(1, 1), measure),
    )


def _no_slopes_over_the_past(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores fall with the distance only in a call without a past. (To count distances from another
    position changes nothing: the softmax takes a constant of a row away.)"""
    bias = attention.alibi_bias

    def without_a_past(slopes: list[float], time: int, keys: int, like: Tensor) -> Tensor:
        return bias(slopes, time, keys, like) * (time == keys)

    monkeypatch.setattr(attention, "alibi_bias", without_a_past)


def _waves_forget_the_past(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    waves = gpt.sinusoids
    monkeypatch.setattr(gpt, "sinusoids", lambda at, *rest: waves(at - at[0], *rest))


def _dead_layer(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model.blocks[1].feed_forward.forward = lambda x: torch.zeros_like(x)


def _rotation_forgets_the_past(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    rotate = attention.rotate
    monkeypatch.setattr(
        attention,
        "rotate",
        lambda x, positions, theta: rotate(x, positions - positions[0], theta),
    )


def _band_one_too_wide(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    for block in model.blocks:
        block.attention.band += 1


def _keeps_the_oldest(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A banded layer's buffer is full: what comes then is seen once and forgotten."""

    def append(past: attention.KeyValues, buffer: Tensor, present: Tensor) -> Tensor:
        room = max(0, min(present.shape[2], buffer.shape[2] - past.pos))
        buffer[:, :, past.pos : past.pos + room] = present[:, :, :room]
        return torch.cat([buffer[:, :, : past.pos], present], dim=2)

    monkeypatch.setattr(attention.KeyValues, "_append", append)


def _cap_over_time(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cap that depends on the largest logit of the text."""
    model.head[1].forward = lambda x: x / x.abs().max()


def _experts_choose_tokens(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zhou et al. 2022 (arXiv 2202.09368): the best tokens of the whole batch, later ones too."""

    def choose(logits_NE: Tensor, active: int) -> tuple[Tensor, Tensor]:
        share = logits_NE.softmax(-1)
        places = share.argsort(0, descending=True).argsort(0)
        kept = torch.where(places < len(share) * active // share.shape[1], share, 0)
        return kept.topk(active)

    monkeypatch.setattr(experts, "choose", choose)


def _experts_are_full(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A capacity, as in Switch: whether a token is dropped depends on the rows before it."""
    choose = experts.choose

    def within(logits_NE: Tensor, active: int) -> tuple[Tensor, Tensor]:
        gates, chosen = choose(logits_NE, active)
        sent = F.one_hot(chosen, logits_NE.shape[1]).sum(1)
        place = (sent.cumsum(0) - 1).gather(1, chosen)
        return gates * (place < len(sent) * active / logits_NE.shape[1]), chosen

    monkeypatch.setattr(experts, "choose", within)


def _router_without_gradient(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    choose = experts.choose
    monkeypatch.setattr(experts, "choose", lambda logits, active: choose(logits.detach(), active))


ONE = ("model.n_layer=1", "train.seq_len=24")

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
    Mutant("rotation forgets the past", "split", "llama", _rotation_forgets_the_past),
    Mutant(
        "distances without the past",
        "split",
        "gpt",
        _no_slopes_over_the_past,
        ("model.positions=alibi",),
    ),
    Mutant(
        "waves forget the past",
        "split",
        "gpt",
        _waves_forget_the_past,
        ("model.positions=sinusoidal",),
    ),
    Mutant("a band one too wide", "receptive_field", "mistral", _band_one_too_wide),
    Mutant("a band's cache keeps the oldest", "split", "gpt3", _keeps_the_oldest),
    Mutant("a cap that looks ahead", "causality", "gpt_modern", _cap_over_time),
    Mutant("experts choose tokens", "causality", "gpt_moe", _experts_choose_tokens, ONE),
    Mutant("experts are full", "score", "gpt_moe", _experts_are_full),
    Mutant("a router without gradient", "gradient", "gpt_moe", _router_without_gradient),
]
