"""The chunked recurrences against their equations, step by step, in float64; gradients too."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.compute.costs import COUNTED_HERE
from tests.zoo.laws import LAWS
from tests.zoo_models import maker
from zoo.layers.matrix_memory import (
    decaying_memory,
    gated_delta_memory,
    generalized_delta_memory,
)

B, H, N, D = 2, 3, 5, 4
Step = Callable[..., Tensor]


def decaying(S: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> Tensor:
    return log_decay.exp()[..., None, None] * S + k[..., None] * v[..., None, :]


def gated_delta(S: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor) -> Tensor:
    """Equation 10, transposed: decay first, then replace what the key finds."""
    outer = k[..., None] * k[..., None, :]
    kept = torch.eye(N, dtype=k.dtype) - beta[..., None, None] * outer
    new = beta[..., None, None] * k[..., None] * v[..., None, :]
    return log_decay.exp()[..., None, None] * (kept @ S) + new


def generalized(
    S: Tensor, log_decay: Tensor, k: Tensor, v: Tensor, removed: Tensor, replaced: Tensor
) -> Tensor:
    transition = torch.diag_embed(log_decay.exp()) - replaced[..., None] * removed[..., None, :]
    return transition @ S + k[..., None] * v[..., None, :]


def inputs(kind: str, time: int) -> list[Tensor]:
    """Queries first, then the arguments of the step; decays from nearly none to nearly all."""
    draw = torch.Generator().manual_seed(time)

    def normal(*shape: int) -> Tensor:
        return torch.randn(B, H, time, *shape, generator=draw, dtype=torch.float64)

    q, k, v, a = (
        normal(N),
        F.normalize(normal(N), dim=-1),
        normal(D),
        F.normalize(normal(N), dim=-1),
    )
    if kind == "decaying":
        return [q, k, v, -(2 * normal()).exp()]
    if kind == "gated_delta":
        return [q, k, v, -(2 * normal()).exp(), normal().sigmoid()]
    return [q, -normal(N).sigmoid(), k, v, a, a * normal(N).sigmoid()]


CASES = {
    "decaying": (decaying_memory, decaying),
    "gated_delta": (gated_delta_memory, gated_delta),
    "generalized": (generalized_delta_memory, generalized),
}


def by_steps(step: Step, tensors: list[Tensor], state: Tensor) -> tuple[Tensor, Tensor]:
    q, *rest = tensors
    read = []
    for t in range(q.shape[2]):
        state = step(state, *(x[:, :, t] for x in rest))
        read.append((q[:, :, t, None] @ state)[:, :, 0])
    return torch.stack(read, 2), state


@pytest.mark.parametrize("time", [1, 3, 64, 65, 150])
@pytest.mark.parametrize("kind", CASES)
def test_equals_the_recurrence(kind: str, time: int) -> None:
    """Within a chunk, over chunks that are full and not, from a given and from the zero state; the
    state left behind, and every gradient."""
    chunked, step = CASES[kind]
    for given in (True, False):
        tensors = [x.requires_grad_() for x in inputs(kind, time)]
        draw = torch.Generator().manual_seed(1)
        state = torch.randn(B, H, N, D, generator=draw, dtype=torch.float64) * given
        state.requires_grad_()
        wanted, wanted_after = by_steps(step, tensors, state)
        found, after = chunked(*tensors, state if given else None)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)
        weights = torch.randn(wanted.shape, generator=draw, dtype=torch.float64)
        losses = [(found * weights).sum(), (wanted * weights).sum()]
        if given:
            assert after is not None
            torch.testing.assert_close(after, wanted_after, rtol=0, atol=1e-10)
            losses = [losses[0] + after.square().sum(), losses[1] + wanted_after.square().sum()]
        else:
            assert after is None
        ours, theirs = (
            torch.autograd.grad(loss, [*tensors, state], allow_unused=True) for loss in losses
        )
        for one, other in zip(ours[: len(tensors) + given], theirs, strict=False):
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", CASES)
def test_exact_to_four_digits_in_fp32(kind: str) -> None:
    """Under bf16 autocast too, where step by step in bf16 has two. What is lost is lost in the
    difference of two sums of logarithms, here of up to some hundreds."""
    chunked, step = CASES[kind]
    tensors = inputs(kind, 128)
    exact, _ = by_steps(step, tensors, torch.zeros(B, H, N, D, dtype=torch.float64))
    with torch.autocast("cpu", torch.bfloat16):
        chunks, _ = chunked(*(x.float() for x in tensors), None)
    assert chunks.dtype == torch.float32
    torch.testing.assert_close(chunks.double(), exact, rtol=0, atol=2e-4 * exact.abs().max().item())


def test_flops_of_a_triangular_system() -> None:
    """Half of those of the product with the inverse."""
    count = COUNTED_HERE[torch.ops.aten.linalg_solve_triangular]
    assert count([2, 3, 7, 7], [2, 3, 7, 5]) == 2 * 3 * 2 * 7 * 7 * 5 / 2


@pytest.mark.parametrize("band", [1, 3])
def test_a_delta_net_of_attention_alone_declares_what_it_sees(band: int) -> None:
    """Without a layer of the delta rule nothing reaches further than its bands together."""
    sizes = ["model.n_layer=2", "model.attention_every=1", f"model.band={band}"]
    made = maker("gated_deltanet_hybrid", *sizes)
    LAWS["receptive_field"](made)
    assert made().receptive_field == 1 + 2 * (band - 1)
