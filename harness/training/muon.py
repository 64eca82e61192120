"""Muon for the hidden layers' matrices, AdamW for the rest."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from harness.compute.device import DTYPES
from harness.compute.processor import rounds_fp32
from harness.compute.race import faster_precision
from harness.training.parameter_groups import Group

# Polynomials of a singular value x, by their coefficients of x, x³ and x⁵.
PUBLISHED = 3.4445, -4.775, 2.0315
QUINTICS = (  # each the nearest to 1 on what is left of [0.01, 1] (Amsel et al. 2025, section 3)
    (8.093369, -23.62043, 17.446152),
    (3.636586, -2.721927, 0.536546),
    (2.6613, -1.977155, 0.452616),
)
# They are of x / MARGIN: beyond their intervals they grow fast, and rounding may lead there.
MARGIN = 1.03
LEAST = 1e-7  # norms below it are taken for it


class Muon(torch.optim.Optimizer):
    """Muon for `hidden` groups (Jordan et al. 2024, "Muon"), AdamW for the others: embeddings, the
    output, norms and biases.

    Convolution kernels are reshaped to (out, in · width); stacked matrices, such as experts'
    weights, are orthogonalized one by one. Updates have AdamW's size (Liu et al. 2025, arXiv
    2502.16982, section 2.2): one learning rate serves both.

    iterations: five as published, the default of the class for runs that name none, or three of
    steeper polynomials (see `orthogonalize`). orthogonalize: in bf16, as published, in fp32, or in
    what is faster here.
    """

    def __init__(
        self,
        params: list[Group],
        lr: float,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        iterations: Literal[3, 5] = 5,
        orthogonalize: Literal["auto", "bf16", "fp32"] = "bf16",
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        hidden = [group for group in self.param_groups if group["hidden"]]
        rest = [group for group in self.param_groups if not group["hidden"]]
        # Views of the matrices in each parameter that is not a single one.
        self._views = {
            p: p.detach().view(_matrices(p, group["stack"])).unbind()
            for group in hidden
            for p in group["params"]
            if p.dim() != 2 or group["stack"]
        }
        self.parts: list[torch.optim.Optimizer] = []
        if matrices := [
            {**group, "params": [m for p in group["params"] for m in self._views.get(p, (p,))]}
            for group in hidden
        ]:
            if orthogonalize == "auto":
                orthogonalize = faster_precision(matrices[0]["params"][0].device.type)
            self.parts += [
                Orthogonalized(
                    matrices, lr, weight_decay, momentum, iterations, DTYPES[orthogonalize]
                )
            ]
        if others := [dict(group) for group in rest]:
            self.parts += [
                torch.optim.AdamW(others, lr, betas, weight_decay=weight_decay, fused=True)
            ]
        self._outer = hidden + rest

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        for parameter, matrices in self._views.items():
            gradient = parameter.grad
            if gradient is not None:
                gradient = gradient.reshape(len(matrices), *matrices[0].shape)
            for number, matrix in enumerate(matrices):
                matrix.grad = None if gradient is None else gradient[number]
        inner = [group for part in self.parts for group in part.param_groups]
        for group, own in zip(self._outer, inner, strict=True):
            own["lr"] = group["lr"]
        for part in self.parts:
            part.step()
        return None

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}


class Orthogonalized(torch.optim.Optimizer):
    """Muon alone, as torch.optim.Muon with `match_rms_adamw`, which knows no precision but bf16 and
    takes matrices one by one: here those of one shape are multiplied together."""

    def __init__(
        self,
        params: list[Group],
        lr: float,
        weight_decay: float,
        momentum: float,
        iterations: Literal[3, 5],
        dtype: torch.dtype,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self._iterations, self._dtype = iterations, dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        of_shape: dict[torch.Size, list[tuple[Tensor, Group]]] = defaultdict(list)
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    of_shape[p.shape].append((p, group))
        stacks = []
        for shape, members in of_shape.items():
            stack = members[0][0].new_empty(len(members), *shape, dtype=self._dtype)
            for row, (p, group) in zip(stack, members, strict=True):
                self._put_direction(p, group, row)
            stacks.append(stack)
        orthogonalize(stacks, self._iterations)
        for (shape, members), updates in zip(of_shape.items(), stacks, strict=True):
            for (p, group), update in zip(members, updates, strict=True):
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * 0.2 * math.sqrt(max(shape)))
        return None

    def _put_direction(self, p: Tensor, group: Group, out: Tensor) -> None:
        """Nesterov's momentum."""
        assert p.grad is not None
        state = self.state[p]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(p.grad)
        average = state["momentum_buffer"].lerp_(p.grad, 1 - group["momentum"])
        out.copy_(p.grad.lerp(average, group["momentum"]))


def orthogonalize(stacks: list[Tensor], iterations: Literal[3, 5]) -> None:
    """Replace matrices, (N, rows, columns) in each stack, by such with singular values near 1.

    Five iterations are the published ones (Jordan et al. 2024), with torch.optim.Muon's
    coefficients. Three are of steeper polynomials and computed on Gram matrices (Zhang et al. 2026,
    "Gram Newton-Schulz"): an iteration takes x to p x, with a polynomial p of x's Gram matrix g,
    and g to p g p, as polynomials of one matrix commute. Matrices of the same shorter side are
    worked on together.

    Where products are of rounded factors the Gram matrix is made anew after the first polynomial:
    the rounding of large singular values would pass into small ones, and grow.
    """
    together: dict[int, list[int]] = defaultdict(list)
    for number, x in enumerate(stacks):
        if iterations == 5:
            stacks[number] = _published(x.mT).mT if _is_tall(x) else _published(x)
        else:
            together[min(x.shape[1:])] += [number]
    for numbers in together.values():
        gram, scale = _bounded(_grams(stacks, numbers))
        if not _is_exact(gram):
            _multiply(stacks, numbers, (_factor(gram, QUINTICS[:1]) * scale).to(gram.dtype))
            _multiply(stacks, numbers, _factor(_grams(stacks, numbers), QUINTICS[1:]))
        else:
            _multiply(stacks, numbers, _factor(gram, QUINTICS) * scale)


def _grams(stacks: list[Tensor], numbers: list[int]) -> Tensor:
    return torch.cat(
        [x.mT @ x if _is_tall(x) else x @ x.mT for x in map(stacks.__getitem__, numbers)]
    )


def _multiply(stacks: list[Tensor], numbers: list[int], factors: Tensor) -> None:
    each = factors.split([len(stacks[number]) for number in numbers])
    for number, factor in zip(numbers, each, strict=True):
        x = stacks[number]
        stacks[number] = x @ factor if _is_tall(x) else factor @ x


def _bounded(gram: Tensor) -> tuple[Tensor, Tensor]:
    """The Gram matrices, (N, M, M), of matrices with no singular value above 1, and what those are
    multiplied by, (N, 1, 1) in fp32: by one over the 8-norm of the singular values, which none
    exceeds. It is nearer to the largest than their 2-norm, by which published ones are divided.
    """
    trace = gram.diagonal(dim1=1, dim2=2).float().sum(1)[:, None, None].clamp(min=LEAST**2)
    gram = (gram / trace).to(gram.dtype)  # or the squares of small gradients would vanish
    norm = torch.linalg.matrix_norm((gram @ gram).float(), keepdim=True).clamp(min=LEAST)
    return (gram / norm.sqrt()).to(gram.dtype), (trace * norm.sqrt()).rsqrt()


def _factor(gram: Tensor, quintics: Sequence[tuple[float, float, float]]) -> Tensor:
    """What matrices with these Gram matrices are multiplied by, (N, M, M), to go through these."""
    factor = None
    for number, (a, b, c) in enumerate(quintics, 1):
        polynomial = torch.baddbmm(gram, gram, gram, beta=b / MARGIN**3, alpha=c / MARGIN**5)
        polynomial.diagonal(dim1=1, dim2=2).add_(a / MARGIN)
        if number < len(quintics):
            gram = polynomial @ gram @ polynomial
        factor = polynomial if factor is None else polynomial @ factor
    assert factor is not None
    return factor


def _is_exact(x: Tensor) -> bool:
    """Whether products of it are of fp32 factors, or better."""
    whole = torch.get_float32_matmul_precision() == "highest" and not rounds_fp32()
    return x.is_cpu and x.dtype.itemsize >= 4 and whole


def _is_tall(x: Tensor) -> bool:
    return x.size(1) > x.size(2)


def _published(x: Tensor) -> Tensor:
    a, b, c = PUBLISHED
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=LEAST)
    for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _matrices(weight: Tensor, stack: int) -> tuple[int, int, int]:
    """A weight's shape as (matrices, rows, columns)."""
    shape = weight.shape
    return shape[:stack].numel(), shape[stack], shape[stack + 1 :].numel()
