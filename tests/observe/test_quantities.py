"""What is measured of a tensor, against closed forms and against numpy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.evaluation.score import token_nats
from harness.observe import quantities
from harness.observe.by_position import loss_by_position, over_patch, over_ranges
from harness.observe.quantities import (
    attention_entropy,
    entropy_of_weights,
    histogram,
    spectral_norm,
)
from tests.zoo.laws import CPU
from tests.zoo_models import maker, random_ids
from zoo.language_model import Cache, LanguageModel
from zoo.layers.attention import attend

GENERATOR = torch.Generator().manual_seed(7)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=GENERATOR)


# Histograms


@pytest.mark.parametrize("scale", [1e-38, 1e-6, 1.0, 1e9])
def test_a_histogram_is_numpys(scale: float) -> None:
    values = scale * normal(40, 25).double().numpy()
    found = histogram(torch.from_numpy(values), bins=17)
    assert found is not None
    as_float = values.astype(np.float32)
    counts, edges = np.histogram(as_float.astype(np.float64), bins=17)
    # A value on an edge may round to either side.
    assert np.abs(np.array(found.counts) - counts).sum() <= 4
    assert sum(found.counts) == 1000
    np.testing.assert_allclose(found.edges, edges, rtol=1e-6, atol=1e-6 * scale)


def test_a_histogram_of_known_values() -> None:
    found = histogram(torch.tensor([0.0, 1.0, 1.0, 3.9, 4.0]), bins=4)
    assert found is not None
    assert (found.counts, found.edges) == ([1, 2, 0, 2], [0, 1, 2, 3, 4])


def test_a_histogram_leaves_out_what_is_no_number() -> None:
    found = histogram(torch.tensor([math.nan, 1.0, math.inf, 2.0, -math.inf]), bins=2)
    assert found is not None
    assert (found.counts, found.edges) == ([1, 1], [1.0, 1.5, 2.0])
    assert histogram(torch.tensor([math.nan])) is None
    assert histogram(torch.zeros(0)) is None


def test_a_histogram_of_one_value_has_a_width() -> None:
    found = histogram(torch.full((3, 5), 2.0), bins=2)
    assert found is not None
    assert (found.counts, found.edges) == ([0, 15], [1.5, 2.0, 2.5])


# Spectral norms


@pytest.mark.parametrize("shape", [(1, 9), (5, 3), (32, 70), (300, 40), (200, 200), (64, 32, 3)])
def test_the_spectral_norm_is_the_largest_singular_value(shape: tuple[int, ...]) -> None:
    weight = normal(*shape)
    exact = torch.linalg.svdvals(weight.flatten(1).double())[0].item()
    assert spectral_norm(weight).item() == pytest.approx(exact, rel=5e-3)
    if min(weight.flatten(1).shape) <= quantities.LANCZOS_STEPS:
        assert spectral_norm(weight).item() == pytest.approx(exact, rel=1e-5)


def test_spectral_norms_of_known_matrices() -> None:
    assert spectral_norm(torch.zeros(40, 50)).item() == 0
    assert spectral_norm(3 * torch.eye(50)).item() == pytest.approx(3)
    assert spectral_norm(1e30 * torch.eye(50)).item() == pytest.approx(1e30)
    assert math.isnan(spectral_norm(torch.full((30, 40), math.nan)).item())
    u, v = normal(60), normal(45)
    assert spectral_norm(torch.outer(u, v)).item() == pytest.approx((u.norm() * v.norm()).item())


def test_no_random_number_of_the_training_is_drawn() -> None:
    state = torch.get_rng_state()
    spectral_norm(normal(50, 50))
    assert torch.equal(state, torch.get_rng_state())


# The entropy of attention


def test_uniform_attention_has_the_entropy_of_as_many_keys() -> None:
    q, k = torch.zeros(2, 3, 1, 4), normal(2, 3, 9, 4)
    torch.testing.assert_close(attention_entropy(q, k, k), torch.full((2, 3, 1), math.log(9)))
    causal = attention_entropy(torch.zeros(1, 1, 9, 4), k[:1, :1], k[:1, :1], is_causal=True)
    torch.testing.assert_close(causal[0, 0], torch.arange(1.0, 10).log())


def test_attention_to_one_key_has_none() -> None:
    q, k = torch.full((1, 1, 1, 1), 100.0), torch.tensor([0.0, 0.0, 9.0, 0.0]).view(1, 1, 4, 1)
    assert attention_entropy(q, k, k).item() == 0


def weights_by_hand(q: Tensor, k: Tensor, allowed: Tensor, scale: float) -> Tensor:
    """One head's attention weights, (T, S), a row at a time."""
    rows = []
    for t in range(len(q)):
        scores = [
            math.exp(scale * float(q[t] @ k[s])) if allowed[t, s] else 0.0 for s in range(len(k))
        ]
        rows.append([score / sum(scores) for score in scores])
    return torch.tensor(rows)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"is_causal": True},
        {"scale": 0.9},
        {"dropout_p": 0.5},
        {"enable_gqa": True},
        {"attn_mask": torch.ones(5, 5).tril().triu(-2).bool()},
        {"attn_mask": torch.zeros(2, 1, 5, 5).masked_fill(torch.ones(5, 5).triu(1) > 0, -1e9)},
    ],
)
def test_the_entropy_is_that_of_the_weights_by_hand(options: dict[str, Any]) -> None:
    groups = 2 if options.get("enable_gqa") else 4
    q, k = normal(2, 4, 5, 3), normal(2, groups, 5, 3)
    entropy = attention_entropy(q, k, k, **options)
    mask = options.get("attn_mask", torch.ones(5, 5))
    allowed = mask if mask.dtype == torch.bool else mask.expand(2, 1, 5, 5)[1, 0] > -1
    allowed = torch.ones(5, 5).tril() > 0 if options.get("is_causal") else allowed
    p = weights_by_hand(q[1, 3], k[1, groups - 1], allowed, options.get("scale", 3**-0.5))
    by_hand = [-sum(float(x) * math.log(x) for x in row if x > 0) for row in p]
    torch.testing.assert_close(entropy[1, 3], torch.tensor(by_hand), rtol=1e-4, atol=1e-5)


def test_a_long_window_is_looked_at_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    q = normal(4, 2, 16, 3)
    whole = attention_entropy(q, q, q, is_causal=True)
    monkeypatch.setattr(quantities, "MAX_WEIGHTS", 2 * 2 * 16 * 16)
    torch.testing.assert_close(attention_entropy(q, q, q, is_causal=True), whole[:2])
    monkeypatch.setattr(quantities, "MAX_WEIGHTS", 2 * 16 * 16 // 4)
    torch.testing.assert_close(attention_entropy(q, q, q, is_causal=True), whole[:1, :, ::4])


def test_the_entropy_sees_what_attend_computes() -> None:
    """By the values: with the identity for values, attention gives its weights."""
    q, k, eye = normal(1, 2, 6, 6), normal(1, 2, 6, 6), torch.eye(6).expand(1, 2, 6, 6)
    expected = entropy_of_weights(attend(q, k, eye, band=3))
    mask = torch.ones(6, 6).tril().triu(-2).bool()
    torch.testing.assert_close(attention_entropy(q, k, eye, mask), expected)
    assert not torch.allclose(attention_entropy(q, k, eye, is_causal=True), expected)


# The loss by position


class Staircase(LanguageModel):
    """At position t of a call the true token (always 0) has logit -t, one of two."""

    vocab_size, block_size, receptive_field = 2, None, None

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Identity()

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        steps_T = -torch.arange(ids_BT.shape[1], dtype=torch.float32)
        return torch.stack([steps_T, torch.zeros_like(steps_T)], -1).expand(len(ids_BT), -1, -1)


def test_the_loss_at_each_position_is_its_closed_form() -> None:
    ids = np.zeros(1000, np.uint8)
    loss_T = loss_by_position(Staircase(), ids, CPU, 12, batch_size=7)
    np.testing.assert_allclose(loss_T, [math.log1p(math.exp(t)) for t in range(12)], rtol=1e-6)


@pytest.mark.parametrize("name", ["gpt", "megabyte"])
def test_the_losses_by_position_add_up_to_the_splits_nats(name: str) -> None:
    """Where windows lie side by side, each token is at one position."""
    model = maker(name, "train.seq_len=16")()
    ids = random_ids(1, 16 * 30 + 1)[0].numpy()
    nats = token_nats(model, ids, CPU, stride=16)
    loss_T = loss_by_position(model, ids, CPU, 16, batch_size=8)
    assert 30 * loss_T.sum() == pytest.approx(nats.sum(dtype=np.float64), rel=1e-9)
    np.testing.assert_allclose(loss_T, nats.reshape(30, 16).mean(0), rtol=1e-9)
    if model.patch_size is not None:
        by_place = over_patch(loss_T, model.patch_size)
        # The first token is at place 0 of its patch; what is predicted first, at place 1.
        for place, loss in enumerate(by_place):
            targets = [t for t in range(1, len(ids)) if (t % 16) % model.patch_size == place]
            assert loss == pytest.approx(np.mean([nats[t - 1] for t in targets]), rel=1e-9)


def test_of_a_long_split_windows_are_chosen_evenly() -> None:
    model = maker("bigram")()
    ids = random_ids(1, 10 * 100 + 5)[0].numpy()
    nats = token_nats(model, ids, CPU)[: 10 * 100].reshape(100, 10)
    loss_T = loss_by_position(model, ids, CPU, 10, batch_size=4, max_windows=12)
    np.testing.assert_allclose(loss_T, nats[0:100:9].mean(0), rtol=1e-9)


def test_ranges_cover_each_position_once() -> None:
    for length in (1, 2, 3, 8, 48, 64, 65):
        losses = np.random.default_rng(length).random(length)
        ranges = over_ranges(losses)
        sizes = {}
        for name in ranges:
            first, _, last = name.partition("-")
            sizes[name] = int(last or first) - int(first) + 1
        assert sum(sizes.values()) == length
        assert sum(ranges[k] * sizes[k] for k in ranges) == pytest.approx(losses.sum())
    assert list(over_ranges(np.zeros(12))) == ["0", "1", "2-3", "4-7", "8-11"]
