"""Perceiver AR against the paper's own computation, in plain loops: N latents at a window's end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from harness.compute import costs as measure
from tests.zoo.architectures import perceiver_ar as forms
from tests.zoo.laws import LAWS, TOLERANCE
from tests.zoo_models import VOCAB, fresh, maker, node, random_ids, randomize
from zoo.perceiver_ar import PerceiverAR

Vector = NDArray[np.float64]

SIZES = {"vocab_size": 7, "block_size": 12, "n_layer": 2, "n_head": 2, "n_embd": 8}


def build(n_latent: int, **options: Any) -> PerceiverAR:
    """Small, with random weights, in float64 and evaluation mode."""
    model = PerceiverAR(**SIZES, n_latent=n_latent, **options)
    randomize(model.double().eval())
    return model


class Paper:
    """Section 3: one window, its last latents, and nothing else."""

    def __init__(self, model: PerceiverAR) -> None:
        self.w = {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}

    def linear(self, name: str, x: Vector) -> Vector:
        return self.w[f"{name}.weight"] @ x + self.w.get(f"{name}.bias", 0.0)

    def norm(self, name: str, x: Vector) -> Vector:
        x = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
        return self.w[f"{name}.weight"] * x + self.w.get(f"{name}.bias", 0.0)

    def attend(self, q: Vector, k: list[Vector], v: list[Vector]) -> Vector:
        said = []
        for head in np.split(np.arange(len(q)), SIZES["n_head"]):
            weights = np.array([np.exp(q[head] @ key[head] / np.sqrt(len(head))) for key in k])
            weights /= weights.sum()
            said.append(sum(weight * value[head] for weight, value in zip(weights, v, strict=True)))
        return np.concatenate(said)

    def feed_forward(self, block: str, x: Vector) -> Vector:
        inner = self.linear(
            f"{block}.feed_forward.expand", self.norm(f"{block}.feed_forward_norm", x)
        )
        squared = np.maximum(inner, 0) ** 2
        return x + self.linear(f"{block}.feed_forward.projection", squared)

    def logits(self, ids: list[int], n_latent: int, hidden: set[int] | None = None) -> Vector:
        """(n_latent, V): those of the window's last n_latent tokens. `hidden` is what context
        dropout hides."""
        x = [
            self.w["token_embedding.weight"][token] + self.w["position_embedding.weight"][t]
            for t, token in enumerate(ids)
        ]
        keys, values = [], []
        for each in x:
            key_value = self.linear("read.key_value", self.norm("read.context_norm", each))
            keys.append(key_value[: len(each)])
            values.append(key_value[len(each) :])
        latents = []
        for t in range(len(ids) - n_latent, len(ids)):
            z = self.linear("latent", x[t])
            q = self.linear("read.query", self.norm("read.latent_norm", z))
            seen = [s for s in range(t + 1) if s == t or s not in (hidden or set())]
            y = self.attend(q, [keys[s] for s in seen], [values[s] for s in seen])
            latents.append(self.feed_forward("read", z + self.linear("read.projection", y)))
        for layer in range(SIZES["n_layer"]):
            block = f"blocks.{layer}"
            q, k, v = zip(
                *(
                    np.split(
                        self.linear(
                            f"{block}.attention.qkv", self.norm(f"{block}.attention_norm", z)
                        ),
                        3,
                    )
                    for z in latents
                ),
                strict=True,
            )
            latents = [
                self.feed_forward(
                    block,
                    z
                    + self.linear(
                        f"{block}.attention.projection",
                        self.attend(q[n], list(k[: n + 1]), list(v[: n + 1])),
                    ),
                )
                for n, z in enumerate(latents)
            ]
        return np.array([self.linear("head", self.norm("norm", z)) for z in latents])


def distance(model: PerceiverAR, paper: Paper, n_latent: int) -> float:
    """The largest difference from the paper's logits of any window of n_latent, 2·n_latent, …"""
    ids = random_ids(2, 12, vocab_size=7)
    with torch.no_grad():
        logits = model(ids).numpy()
    return max(
        np.abs(logits[row, end - n_latent : end] - paper.logits(tokens[:end], n_latent)).max()
        for row, tokens in enumerate(ids.tolist())
        for end in range(n_latent, 13, n_latent)
    )


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("n_latent", [1, 3, 4, 6, 12])
def test_every_group_is_the_papers_window(n_latent: int, bias: bool) -> None:
    model = build(n_latent, bias=bias)
    assert distance(model, Paper(model), n_latent) <= TOLERANCE


def test_a_group_under_way_is_a_window_of_fewer_latents() -> None:
    model = build(4)
    paper = Paper(model)
    ids = random_ids(1, 12, vocab_size=7)
    for time in range(1, 13):
        with torch.no_grad():
            logits = model(ids[:, :time])[0, -1].numpy()
        expected = paper.logits(ids[0, :time].tolist(), (time - 1) % 4 + 1)[-1]
        assert np.abs(logits - expected).max() <= TOLERANCE


def _band_too_wide(model: PerceiverAR) -> None:
    """The first latent of a group sees the last of the group before."""
    for block in model.blocks:
        block.attention.overlap = 1


def _group_too_long(model: PerceiverAR) -> None:
    for block in model.blocks:
        block.attention.segment += 1


def _no_own_embedding(model: PerceiverAR) -> None:
    """The latents begin from nothing: what they read is all they are."""
    model.latent.weight.data.zero_()


def _late_positions(model: PerceiverAR) -> None:
    table = model.position_embedding
    table.forward = lambda at: table.weight[(at + 1) % 12]  # type: ignore[method-assign]


def _one_norm(model: PerceiverAR) -> None:
    """Latents are normalized as the context is."""
    model.read.latent_norm = model.read.context_norm


@pytest.mark.parametrize(
    "mutate", [_band_too_wide, _group_too_long, _no_own_embedding, _late_positions, _one_norm]
)
def test_the_reference_notices(mutate: Callable[[PerceiverAR], None]) -> None:
    model = build(4)
    paper = Paper(model)
    assert distance(model, paper, 4) <= TOLERANCE
    mutate(model)
    assert distance(model, paper, 4) > 1e-3


def test_context_dropout_hides_tokens_from_all_latents_but_their_own() -> None:
    model = build(4, context_dropout=0.5)
    paper = Paper(model)
    ids = random_ids(3, 12, vocab_size=7)
    torch.manual_seed(5)
    kept = torch.rand(3, 12) >= 0.5
    torch.manual_seed(5)
    with torch.no_grad():
        logits = model.train()(ids).numpy()
    assert 0 < kept.sum() < 36
    for row, tokens in enumerate(ids.tolist()):
        hidden = {t for t in range(12) if not kept[row, t]}
        for end in (4, 8, 12):
            expected = paper.logits(tokens[:end], 4, hidden)
            assert np.abs(logits[row, end - 4 : end] - expected).max() <= TOLERANCE


def test_context_dropout_selects_at_random_and_never_the_future() -> None:
    read = build(4, context_dropout=0.8).read
    torch.manual_seed(0)
    seen = read._selection(500, 6, 10, torch.device("cpu"))
    assert seen.shape == (500, 1, 6, 10)
    for query in range(6):
        own = 4 + query  # queries are the last of the keys
        assert seen[:, 0, query, own].all()
        assert not seen[:, 0, query, own + 1 :].any()
    earlier = seen[:, 0, :, :4]
    assert torch.equal(earlier, earlier[:, :1].expand_as(earlier))  # the same for all latents
    assert earlier.double().mean() == pytest.approx(0.2, abs=0.03)
    assert len(earlier[:, 0].unique(dim=0)) > 1  # each sequence has its own


def test_context_dropout_is_for_training_alone() -> None:
    ids = random_ids(2, 12, vocab_size=7)
    with torch.no_grad():
        expected = build(4)(ids)
        assert torch.equal(build(4, context_dropout=0.9)(ids), expected)
        assert not torch.equal(build(4, context_dropout=0.9).train()(ids), expected)


OPTIONS = {
    "one latent": ("model.n_latent=1", "train.seq_len=24"),
    "all latents": ("model.n_latent=24", "train.seq_len=24", "model.bias=false"),
    "context dropout": ("model.n_latent=5", "train.seq_len=20", "model.context_dropout=0.3"),
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(
    "options", ["one latent", *(pytest.param(o, marks=pytest.mark.long) for o in [*OPTIONS][1:])]
)
def test_law_with_options(options: str, law: str) -> None:
    LAWS[law](maker("perceiver_ar", *OPTIONS[options]))


@pytest.mark.parametrize("options", OPTIONS)
def test_closed_forms_with_options(options: str) -> None:
    model_node = node("perceiver_ar", *OPTIONS[options])
    model = fresh(model_node)
    assert measure.parameters(model)["total"] == forms.parameters(model_node, VOCAB)
    for time in (1, 7, model.block_size):
        counted = measure.forward_flops(lambda: fresh(model_node), time)
        assert counted == pytest.approx(forms.forward_flops(model_node, VOCAB, time), rel=0.01)


def test_the_cache_keeps_the_context_once_and_the_latents_of_one_group() -> None:
    cache = build(4).init_cache(3)
    assert cache.tensors["0.keys"].shape == (3, 2, 12, 4)
    assert cache.tensors["1.keys"].shape == cache.tensors["2.values"].shape == (3, 2, 3, 4)
    assert cache.nbytes == 2 * 8 * 3 * 8 * (12 + 2 * 3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"block_size": 10}, "block_size=10 is not a multiple of n_latent=4"),
        ({"n_latent": 24}, "block_size=12 is not a multiple of n_latent=24"),
        ({"n_latent": 0}, "n_latent=0 must be at least 1"),
        ({"n_head": 3}, "n_embd=8 is not a multiple of n_head=3"),
        ({"n_layer": 0}, "n_layer=0 must be at least 1"),
        ({"context_dropout": 1.0}, "context_dropout=1 must be in"),
    ],
)
def test_what_makes_no_model_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PerceiverAR(**{**SIZES, "n_latent": 4, **wrong})
