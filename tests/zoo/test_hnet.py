"""H-Net: its boundaries, its smoothing and its losses."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.compute.costs import forward_flops
from tests.small_runs import rows, summary, train
from tests.zoo.architectures import hnet as forms
from tests.zoo.laws import LAWS
from tests.zoo_models import VOCAB, fresh, maker, node, random_ids, randomize
from zoo import hnet
from zoo.hnet import HNet, Router, ratio_loss, smooth, straight_through

SIZES: dict[str, Any] = {
    "block_size": 40, "n_layer_main": 2, "n_head_main": 2, "n_embd_main": 24,
    "n_layer_encoder": 2, "n_layer_decoder": 1, "n_embd": 16, "n_head_channels": 8, "n_state": 6,
    "n_chunk": 40,
}  # fmt: skip
SMALL = (
    "model=hnet", "model.n_layer_main=1", "model.n_head_main=2", "model.n_embd_main=24",
    "model.n_layer_encoder=1", "model.n_layer_decoder=1", "model.n_embd=16",
    "model.n_head_channels=16", "model.n_state=8",
)  # fmt: skip
DRAW = torch.Generator().manual_seed(0)


def small(**options: Any) -> HNet:
    return randomize(HNet(VOCAB, **SIZES | options).double().eval())  # type: ignore[return-value]


def probabilities(model: HNet, ids: Tensor) -> Tensor:
    """Of a boundary, (B, T)."""
    found: list[Tensor] = []
    hook = model.router.register_forward_hook(lambda _, __, p_BT: found.append(p_BT))
    model(ids)
    hook.remove()
    return found[0]


@pytest.mark.parametrize("law", ["causality", "split", "receptive_field", "gradient", "documents"])
def test_law_without_a_bound_of_chunks(law: str) -> None:
    LAWS[law](maker("hnet", *forms.UNBOUND))


@pytest.mark.parametrize(
    "options",
    [{"tie_weights": True, "n_chunk": 7}, {"n_chunk": None, "chunk_size": 2.5, "expand": 1}],
    ids=["tied", "half narrow"],
)
def test_closed_forms_with_options(options: dict[str, Any]) -> None:
    described = node("hnet") | SIZES | options
    model = fresh(described)
    assert sum(p.numel() for p in model.parameters()) == forms.parameters(described, VOCAB)
    counted = forward_flops(lambda: fresh(described), 40)
    assert counted == forms.forward_flops(described, VOCAB, 40)


def test_flops_are_those_of_any_boundaries() -> None:
    """By values, on the CPU, as on meta, where no token has a value."""

    def on_cpu() -> HNet:
        if torch.get_default_device().type == "meta":
            raise RuntimeError("a model that looks at its values")
        return fresh(described)  # type: ignore[return-value]

    described = node("hnet") | SIZES
    counted = forward_flops(lambda: fresh(described), 40)
    assert forward_flops(on_cpu, 40) == counted


def test_the_router_compares_with_the_token_before() -> None:
    """Equation 4, by hand: the same direction, a right angle, the opposite one."""
    x = torch.tensor([[[1.0, 0], [3, 0], [0, 2], [0, -1], [1, -1]]], dtype=torch.float64)
    model = HNet(VOCAB, **SIZES)
    for each in (model.router.query, model.router.key):
        assert torch.equal(each.weight, torch.eye(16))
    router = Router(2).double()
    router.load_state_dict({f"{name}.weight": torch.eye(2) for name in ("query", "key")})
    expected = [1, 0, 0.5, 1, (1 - 0.5**0.5) / 2]
    assert router(x, None, 0)[0].tolist() == pytest.approx(expected)
    turned = torch.tensor([[0.0, -1], [1, 0]], dtype=torch.float64)  # the query, not the key
    router.query.weight.data.copy_(turned)
    assert router(x, None, 0)[0].tolist()[:3] == pytest.approx([1, 0.5, 1])


@torch.no_grad()
def test_a_later_token_moves_no_boundary() -> None:
    """The boundary itself, apart from the numbers that hang on it: of every prefix it is the
    same, and there are many."""
    model, ids = small(), random_ids(8, 40)
    whole = probabilities(model, ids)
    assert 0.2 < (whole >= 0.5).double().mean() < 0.8
    for end in range(1, 40):
        found = probabilities(model, ids[:, :end])
        torch.testing.assert_close(found, whole[:, :end], rtol=0, atol=1e-12)


@pytest.mark.parametrize("extreme", [False, True])
def test_smoothing_is_a_moving_average(extreme: bool) -> None:
    """Equation 5 as a loop, its gradients, and a state handed on at any place."""
    y = torch.randn(2, 70, 3, generator=DRAW, dtype=torch.float64).requires_grad_()
    p = torch.rand(2, 70, generator=DRAW, dtype=torch.float64)
    p = (p.round() * hnet.SUREST if extreme else p / 2 + 0.49).requires_grad_()
    z, expected = torch.zeros(2, 3, dtype=torch.float64), []
    for k in range(70):
        z = p[:, k, None] * y[:, k] + (1 - p[:, k, None]) * z
        expected.append(z)
    whole, _ = smooth(y, p, None)
    weights = torch.randn(2, 70, 3, generator=DRAW, dtype=torch.float64)
    wanted = torch.autograd.grad((torch.stack(expected, 1) * weights).sum(), [y, p])
    found = torch.autograd.grad((whole * weights).sum(), [y, p])
    torch.testing.assert_close(whole, torch.stack(expected, 1), rtol=0, atol=1e-12)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)
    for cuts in ([1, 2], [33], list(range(1, 70))):
        state: Tensor | None = torch.zeros(2, 1, 1, 3, dtype=torch.float64)
        parts = []
        for y_part, p_part in zip(y.tensor_split(cuts, 1), p.tensor_split(cuts, 1), strict=True):
            part, state = smooth(y_part, p_part, state)
            parts.append(part)
        torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-12)


def straight_through_law(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Exactly 1, with the gradient of p where a chunk begins, and of 1 - p elsewhere."""
    p = torch.tensor([[1.0, 0.3, 0.7, 0.1]], requires_grad=True)
    begins = torch.tensor([[True, False, True, False]])
    found = function(p, begins)
    assert torch.equal(found, torch.ones(1, 4))
    assert found.requires_grad
    weights = torch.tensor([[2.0, 3, 5, 7]])
    (gradient,) = torch.autograd.grad((found * weights).sum(), p)
    assert gradient.tolist() == [[2, -3, 5, -7]]


def ratio_law(function: Callable[[Tensor, float], Tensor]) -> None:
    """1 at the target; from above its gradient makes boundaries rarer, from below more frequent."""
    target = torch.tensor([[1.0] + [0.1] * 9, [1.0] + [0.0] * 9], dtype=torch.float64)
    mean = target.mean()  # of p; the share of boundaries is 1/10
    by_hand = 10 / 9 * (9 * 0.1 * mean + 0.9 * (1 - mean))
    assert function(target, 10.0).item() == pytest.approx(by_hand.item())
    assert function(target[1:], 10.0).item() == pytest.approx(1)
    for begun, sign in ((10, 1), (1, -1)):  # of 20
        p = torch.full((1, 20), 0.3, dtype=torch.float64)
        p[:, :begun] = 0.9
        (gradient,) = torch.autograd.grad(function(p.requires_grad_(), 5.0), p)
        assert (sign * gradient > 0).all()


def test_the_straight_through_estimator() -> None:
    straight_through_law(straight_through)


def test_the_ratio_loss() -> None:
    ratio_law(ratio_loss)


def test_the_laws_of_both_notice() -> None:
    for mutant in (
        lambda p, begins: straight_through(p.detach(), begins),
        lambda p, begins: straight_through(p, ~begins),
        lambda p, begins: torch.where(begins, p, 1 - p),
    ):
        with pytest.raises(AssertionError):
            straight_through_law(mutant)
    for wrong in (
        lambda p, n: -ratio_loss(p, n),
        lambda p, n: 2 - ratio_loss(p, n),
        lambda p, n: ratio_loss(p, n + 1),
        lambda p, n: ratio_loss(1 - p, n),
    ):
        with pytest.raises(AssertionError):
            ratio_law(wrong)


def test_every_token_teaches_the_router() -> None:
    """Where no chunk begins, too: there by the straight-through estimator alone."""
    model, ids = small(), random_ids(2, 30)
    found: list[Tensor] = []

    def kept(_: Any, __: Any, p_BT: Tensor) -> None:
        p_BT.retain_grad()
        found.append(p_BT)

    model.router.register_forward_hook(kept)
    F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).backward()
    gradient = found[0].grad
    assert gradient is not None
    assert gradient[:, 1:].all()


def test_the_ratio_loss_makes_chunks_as_long_as_asked() -> None:
    """Trained by nothing else, a router that begins a chunk at every other token learns to do so at
    every fourth or so."""
    torch.manual_seed(0)
    model, ids = HNet(VOCAB, **SIZES, chunk_size=4.0), random_ids(16, 40)
    with torch.no_grad():
        before = (probabilities(model, ids) >= 0.5).double().mean()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(60):
        losses: dict[str, Tensor] = {}
        model(ids, losses=losses)
        optimizer.zero_grad()
        losses["ratio"].backward()
        optimizer.step()
    after = (probabilities(model, ids) >= 0.5).double().mean()
    assert before > 0.4
    assert 0.15 < after < 0.35


@torch.no_grad()
def test_a_token_in_a_chunk_asks_nothing_of_the_main_network() -> None:
    """Decoding takes a step of it where a chunk begins, and nowhere else."""
    model, ids = small(), random_ids(1, 40)
    calls: list[int] = []
    model.main_norm.register_forward_hook(lambda *_: calls.append(1))
    begun = int((probabilities(model, ids) >= 0.5).sum())
    calls.clear()
    cache = model.init_cache(1)
    for token in ids.split(1, dim=1):
        model(token, cache)
    assert len(calls) == begun < 40


def test_a_training_and_its_certificate(tmp_path: Path) -> None:
    assert train(tmp_path, *SMALL) == 0
    assert summary(tmp_path)["certificate"].startswith("passed")
    steps = [row for row in rows(tmp_path) if "lr" in row]
    assert all(math.isfinite(row["train/auxiliary/ratio"]) for row in steps)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"chunk_size": 1.0}, "chunk_size=1 must be above 1"),
        ({"n_chunk": 0}, "n_chunk=0 must be at least 1"),
        ({"n_embd": 24}, "n_embd=24 must be below n_embd_main=24"),
        ({"n_head_channels": 5}, "expand·n_embd=32 is not a multiple of n_head_channels=5"),
        ({"ratio_weight": -1.0}, "ratio_weight=-1 must be at least 0"),
    ],
)
def test_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        HNet(VOCAB, **SIZES | options)
