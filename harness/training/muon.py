"""Muon for the hidden layers' matrices, AdamW for the rest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import reduce
from itertools import groupby
from typing import Any, Literal

import torch
from torch import Tensor

from harness.compute.device import DTYPES
from harness.compute.processor import rounds_fp32
from harness.compute.race import faster_precision
from harness.training.parameter_groups import Group

COEFFICIENTS = 3.4445, -4.775, 2.0315  # of x, x³ and x⁵
ITERATIONS = 5
LEAST_ROUNDED = 64  # rows below which there is little to save, and rounding is torch's own
BAND = 128  # rows of a symmetric product that are computed together


class Muon(torch.optim.Optimizer):
    """Muon for `hidden` groups (Jordan et al. 2024, "Muon"), AdamW for the others: embeddings, the
    output, norms and biases.

    Convolution kernels are reshaped to (out, in · width); stacked matrices, such as experts'
    weights, are orthogonalized one by one. Updates have AdamW's size (Liu et al. 2025, arXiv
    2502.16982, section 2.2): one learning rate serves both.

    orthogonalize: in bf16, as published, in fp32, or in what is faster here. per_map: each head's
    queries, keys and values, and other joint maps (zoo.roles.joint), by themselves, not as the one
    matrix they are stored in ("Per-Head Muon": Kimi Team 2026, arXiv 2607.24653, section 2.5; GLM-5
    Team 2026, arXiv 2602.15763).

    A default is what runs from before the option have: they name none, and go on with it.
    """

    def __init__(
        self,
        params: list[Group],
        lr: float,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        orthogonalize: Literal["auto", "bf16", "fp32"] = "bf16",
        per_map: bool = False,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        hidden = [group for group in self.param_groups if group["hidden"]]
        rest = [group for group in self.param_groups if not group["hidden"]]
        # Views of the matrices in each parameter that is not a single one.
        self._views: dict[Tensor, Sequence[Tensor]] = {}
        for group in hidden:
            for p, maps in zip(group["params"], group["maps"], strict=True):
                if per_map and maps:
                    self._views[p] = _maps(p.detach(), maps)
                elif p.dim() != 2 or group["stack"]:
                    self._views[p] = p.detach().view(_matrices(p, group["stack"])).unbind()
        self.parts: list[torch.optim.Optimizer] = []
        if matrices := [
            {**group, "params": [m for p in group["params"] for m in self._views.get(p, (p,))]}
            for group in hidden
        ]:
            if orthogonalize == "auto":
                orthogonalize = faster_precision(matrices[0]["params"][0].device.type)
            self.parts += [
                Orthogonalized(matrices, lr, weight_decay, momentum, DTYPES[orthogonalize])
            ]
        if others := [dict(group) for group in rest]:
            self.parts += [
                torch.optim.AdamW(others, lr, betas, weight_decay=weight_decay, fused=True)
            ]
        self._outer = hidden + rest

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        for parameter, views in self._views.items():
            gradient = parameter.grad
            sizes = [view.numel() for view in views]
            parts = [None] * len(views) if gradient is None else gradient.reshape(-1).split(sizes)
            for view, part in zip(views, parts, strict=True):
                view.grad = None if part is None else part.view(view.shape)
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
    takes matrices one by one: here those of one shape are multiplied together. Parameters are
    matrices, or stacks of them, (N, rows, columns)."""

    def __init__(
        self,
        params: list[Group],
        lr: float,
        weight_decay: float,
        momentum: float,
        dtype: torch.dtype,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        alike = [(group, params) for group in self.param_groups for params in _of_a_shape(group)]
        stacks = [self._directions(params, group["momentum"]) for group, params in alike]
        orthogonalize(stacks)
        for (group, params), updates in zip(alike, stacks, strict=True):
            rate, longer = group["lr"], max(updates.shape[1:])
            torch._foreach_mul_(params, 1 - rate * group["weight_decay"])
            torch._foreach_add_(params, _apart(updates, params), alpha=-rate * 0.2 * longer**0.5)
        return None

    def _directions(self, params: list[Tensor], momentum: float) -> Tensor:
        """Nesterov's momentum of matrices of one shape, (N, rows, columns)."""
        gradients = [p.grad for p in params if p.grad is not None]
        for p in params:
            if not self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        averages = [self.state[p]["momentum_buffer"] for p in params]
        torch._foreach_lerp_(averages, gradients, 1 - momentum)
        size = sum(p.shape[:-2].numel() for p in params)
        stack = params[0].new_empty(size, *params[0].shape[-2:], dtype=self._dtype)
        whole = zip(_apart(stack, params), gradients, averages, strict=True)
        for direction, gradient, average in whole:
            direction.copy_(gradient.lerp(average, momentum))
        return stack


def _of_a_shape(group: Group) -> list[list[Tensor]]:
    """The parameters that have a gradient, by the shape of their matrices."""
    found: dict[torch.Size, list[Tensor]] = defaultdict(list)
    for p in group["params"]:
        if p.grad is not None:
            found[p.shape[-2:]].append(p)
    return list(found.values())


def _apart(stack: Tensor, params: list[Tensor]) -> list[Tensor]:
    """The part of a stack, (N, rows, columns), that is each parameter's, in its shape."""
    parts = stack.split([p.shape[:-2].numel() for p in params])
    return [part.view(p.shape) for part, p in zip(parts, params, strict=True)]


def orthogonalize(stacks: list[Tensor]) -> None:
    """Replace matrices, (N, rows, columns) in each stack, by such with all singular values near 1,
    by five Newton-Schulz iterations (Jordan et al. 2024) with torch.optim.Muon's coefficients.

    Long matrices with equally long shorter sides are worked on together. One after the other they
    take the places of those before, so that little more than all of them is in memory.
    """
    together: dict[int, list[int]] = defaultdict(list)
    is_tall = [stack.size(1) > stack.size(2) for stack in stacks]
    for number, stack in enumerate(stacks):
        x = stack.mT if is_tall[number] else stack
        x = stacks[number] = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=1e-7)
        is_long = 2 * x.size(2) > 3 * x.size(1)
        if is_long and (_is_exact(x) or x.size(1) >= LEAST_ROUNDED):
            together[x.size(1)] += [number]
        else:
            stacks[number] = _by_iterations(x)
    for numbers in together.values():
        # Where products are rounded a small singular value's square is lost in the Gram matrix,
        # and what takes its place grows with each iteration: it is made anew after three.
        is_exact = _is_exact(stacks[numbers[0]])
        for iterations in (ITERATIONS,) if is_exact else (3, ITERATIONS - 3):
            polynomials = _polynomials([stacks[number] for number in numbers], iterations)
            for number, polynomial in zip(numbers, polynomials, strict=True):
                # Rows stay rows in memory: turned ones take ten times as long to add.
                x = stacks[number]
                stacks[number] = (x.mT @ polynomial.mT).mT if is_tall[number] else polynomial @ x
    for number, x in enumerate(stacks):
        stacks[number] = x.mT if is_tall[number] else x


def _is_exact(x: Tensor) -> bool:
    """Whether products of it are of fp32 factors, or better."""
    whole = torch.get_float32_matmul_precision() == "highest" and not rounds_fp32()
    return x.is_cpu and x.dtype.itemsize >= 4 and whole


def _by_iterations(x: Tensor) -> Tensor:
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = symmetric(x, x.mT)
        x = torch.baddbmm(x, symmetric(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _polynomials(stacks: list[Tensor], iterations: int) -> tuple[Tensor, ...]:
    """What so many iterations multiply long matrices by, with fewer products (Zhang et al. 2026,
    "Gram Newton-Schulz"): one takes x to p x, with a polynomial p of x's Gram matrix g, and g to
    p g p, as polynomials of one matrix commute."""
    a, b, c = COEFFICIENTS
    gram, polynomials = torch.cat([symmetric(x, x.mT) for x in stacks]), []
    for iteration in range(iterations):
        polynomials += [torch.baddbmm(gram, gram, gram, beta=b, alpha=c)]
        polynomials[-1].diagonal(dim1=1, dim2=2).add_(a)
        if iteration < iterations - 1:
            gram = polynomials[-1] @ gram @ polynomials[-1]
    return reduce(torch.matmul, polynomials).split([len(x) for x in stacks])


def symmetric(
    a: Tensor, b: Tensor, c: Tensor | None = None, *, beta: float = 1.0, alpha: float = 1.0
) -> Tensor:
    """The product of a and b, (N, M, M), which must be symmetric; with c beta·c + alpha·a b.

    In fp32 on a CPU computed to the diagonal, in bands of rows, and mirrored: for b = aᵀ alone. Of
    matrices that commute but for rounding the mirrored part's rounding is lost, which grows. In
    bf16 products are so fast that copying takes what this saves.
    """

    def product(rows: slice, columns: slice) -> Tensor:
        left, right = a[:, rows], b[:, :, columns]
        if c is None:
            return left @ right
        return torch.baddbmm(c[:, rows, columns], left, right, beta=beta, alpha=alpha)

    if not (a.is_cpu and a.dtype == torch.float32 and a.size(1) >= 2 * BAND):
        return product(slice(None), slice(None))
    whole = a.new_empty(len(a), a.size(1), a.size(1))
    for start in range(0, a.size(1), BAND):
        rows = slice(start, start + BAND)
        whole[:, rows, : rows.stop] = product(rows, slice(rows.stop))
        whole[:, :start, rows] = whole[:, rows, :start].mT
    return whole


def _matrices(weight: Tensor, stack: int) -> tuple[int, int, int]:
    """A weight's shape as (matrices, rows, columns)."""
    shape = weight.shape
    return shape[:stack].numel(), shape[stack], shape[stack + 1 :].numel()


def _maps(weight: Tensor, maps: Sequence[int]) -> list[Tensor]:
    """Views of a weight's maps: those of one size that follow each other as (N, rows, columns)."""
    runs = [(len(list(run)), rows) for rows, run in groupby(maps)]
    sizes = [count * rows for count, rows in runs]
    parts = zip(weight.view(len(weight), -1).split(sizes), runs, strict=True)
    return [part.view(count, rows, -1) for part, (count, rows) in parts]
