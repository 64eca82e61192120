"""Optimizers that keep what they know in odd ways. `trust=[tests]` makes them nameable."""

from __future__ import annotations

from typing import Any

import torch


class _Odd(torch.optim.Optimizer):
    """Momentum, 0.9 of it; subclasses scale it."""

    def __init__(self, params: Any, lr: float, momentum: float = 0.9) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            self.begin(group)
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                state["momentum"].mul_(group["momentum"]).add_(p.grad)
                p.add_(state["momentum"] * self.scale(group, state, p), alpha=-group["lr"])

    def begin(self, group: dict[str, Any]) -> None:
        """Before a group's parameters."""

    def scale(self, group: dict[str, Any], state: dict[str, Any], p: torch.Tensor) -> Any:
        return 1.0


class InGroups(_Odd):
    """A step count and a table in the groups, as AdaBelief and RAdam have had them; the table is
    one for all groups, and is filled bit by bit."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, lr)
        table = [[None, None] for _ in range(4)]
        for group in self.param_groups:
            group["table"] = table

    def begin(self, group: dict[str, Any]) -> None:
        group["step"] = group.get("step", 0) + 1
        group["table"][group["step"] % 4][:] = [group["step"], 1 / group["step"]]

    def scale(self, group: dict[str, Any], state: dict[str, Any], p: torch.Tensor) -> Any:
        return sum(row[1] or 0.0 for row in group["table"]) / group["step"]


class EveryType(_Odd):
    """Complex, whole, half, boolean and empty tensors, nests, a tensor for all groups, and a count
    that belongs to no parameter."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, lr)
        shared = torch.zeros(3, dtype=torch.float64)
        for group in self.param_groups:
            group["shared"] = shared

    def begin(self, group: dict[str, Any]) -> None:
        states: dict[Any, Any] = self.state
        states["groups"] = states.get("groups", 0) + 1

    def scale(self, group: dict[str, Any], state: dict[str, Any], p: torch.Tensor) -> Any:
        if "complex" not in state:
            state["complex"] = torch.zeros(p.shape, dtype=torch.complex64)
            state["nest"] = {"whole": torch.zeros((), dtype=torch.int64), "word": "a", "none": None}
            state["halves"] = [torch.zeros_like(p, dtype=torch.bfloat16), (1, True)]
            state["bits"] = torch.zeros(p.shape, dtype=torch.bool)
            state["empty"] = torch.zeros(0, 3)
        group["shared"] += p.sum().double()
        state["complex"] += torch.complex(p.grad, p)
        state["nest"]["whole"] += 3
        state["nest"]["word"] = f"{state['nest']['whole'].item()}"
        state["halves"][0] += p.grad.bfloat16()
        state["halves"][1] = (state["halves"][1][0] + 1, p.sum().item() > 0)
        state["bits"] ^= p.grad > 0
        scale = state["complex"].imag.sin() + state["halves"][0].float().cos() + state["bits"]
        scale += group["shared"].sin().sum().float() + state["halves"][1][0]
        states: dict[Any, Any] = self.state
        return scale / states["groups"]


class Elsewhere(_Odd):
    """A count on the optimizer itself, which nobody saves."""

    steps = 0

    def begin(self, group: dict[str, Any]) -> None:
        self.steps += 1

    def scale(self, group: dict[str, Any], state: dict[str, Any], p: torch.Tensor) -> Any:
        return 1 / self.steps


class PerMap(_Odd):
    """A count on the optimizer itself, of parameters with joint maps alone."""

    steps = 0

    def begin(self, group: dict[str, Any]) -> None:
        self.steps += any(group["maps"])

    def scale(self, group: dict[str, Any], state: dict[str, Any], p: torch.Tensor) -> Any:
        return 1 / (1 + self.steps)


class Late(_Odd):
    """A state that appears at the third step."""

    def scale(self, group: dict[str, Any], state: dict[str, Any], p: torch.Tensor) -> Any:
        state["steps"] = state.get("steps", 0) + 1
        if state["steps"] == 3:
            state["slow"] = p.clone()
        return 1.0


class OwnOptions(_Odd):
    """Changes what the configuration decides."""

    def begin(self, group: dict[str, Any]) -> None:
        group["momentum"] *= 0.5


class NoGradients(_Odd):
    """Removes gradients, which are views of one buffer."""

    def step(self, closure: Any = None) -> None:
        super().step()
        self.zero_grad(set_to_none=True)
