"""Muon for the hidden layers' matrices, AdamW for the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from harness.training.parameter_groups import Group


class Muon(torch.optim.Optimizer):
    """Muon for `hidden` groups (Jordan et al. 2024, "Muon"), AdamW for the others: embeddings, the
    output, norms and biases.

    Convolution kernels are reshaped to (out, in · width); stacked matrices, such as experts'
    weights, are orthogonalized one by one. Updates have AdamW's size (Liu et al. 2025, arXiv
    2502.16982, section 2.2): one learning rate serves both.
    """

    def __init__(
        self,
        params: list[Group],
        lr: float,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        hidden = [group for group in self.param_groups if group["hidden"]]
        rest = [group for group in self.param_groups if not group["hidden"]]
        # Each parameter, the number of axes that stack matrices, and views of the matrices.
        self._hidden = [
            (p, group["stack"], p.detach().view(_matrices(p, group["stack"])).unbind())
            for group in hidden
            for p in group["params"]
        ]
        views = {p: matrices for p, _, matrices in self._hidden}
        self.parts: list[torch.optim.Optimizer] = []
        if matrices := [
            {**group, "params": [m for p in group["params"] for m in views[p]]} for group in hidden
        ]:
            self.parts += [
                torch.optim.Muon(
                    matrices, lr, weight_decay, momentum, adjust_lr_fn="match_rms_adamw"
                )
            ]
        if others := [dict(group) for group in rest]:
            self.parts += [
                torch.optim.AdamW(others, lr, betas, weight_decay=weight_decay, fused=True)
            ]
        self._outer = hidden + rest

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        for parameter, stack, matrices in self._hidden:
            gradient = parameter.grad
            if gradient is not None:
                gradient = gradient.reshape(_matrices(parameter, stack))
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


def _matrices(weight: Tensor, stack: int) -> tuple[int, int, int]:
    """A weight's shape as (matrices, rows, columns)."""
    shape = weight.shape
    return shape[:stack].numel(), shape[stack], shape[stack + 1 :].numel()
