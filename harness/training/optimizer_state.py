"""An optimizer's state in a checkpoint.

Whatever torch's optimizers, and those written like them, keep lies in `state` and in
`param_groups`. Both are saved as torch saves them. They are not loaded as torch loads them: it
takes any name, shape and stride, which fused kernels do not check, casts every tensor to its
parameter's dtype, and takes all options from the file.
"""

from __future__ import annotations

import inspect
import io
import math
import pickle
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from harness.common.errors import UsageError
from harness.runs.restore import require_names, restored
from harness.training.muon import Muon
from harness.training.parameter_groups import Group

OURS = frozenset({"params", "lr", "peak_lr", "weight_decay", "hidden", "stack", "maps"})
TRIED = 3  # updates before, and as many after


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, saved: dict[str, Any], updates: int
) -> None:
    """Load what an optimizer kept after so many updates. Options, rates among them, stay as
    configured.

    The optimizer is a new one. An update lays out its state, and so changes the weights: load them
    afterwards. Gradients are then zero. Raises ValueError, naming the entry, for a state that it
    would not have.
    """
    if updates:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        torch._foreach_add_(gradients, 1.0)  # some optimizers do nothing if all are zero
        optimizer.step()
        torch._foreach_zero_(gradients)
    if isinstance(optimizer, Muon):
        given = require_names(optimizer.state_dict(), saved, "optimizer")["parts"]
        if not isinstance(given, list) or len(given) != len(optimizer.parts):
            raise ValueError(f"optimizer.parts are not {len(optimizer.parts)}")
        for number, part in enumerate(optimizer.parts):
            _load(part, given[number], f"optimizer.parts.{number}")
    else:
        _load(optimizer, saved, "optimizer")


def _load(optimizer: torch.optim.Optimizer, saved: object, name: str) -> None:
    own = optimizer.state_dict()
    given = require_names(own, saved, name)
    # In place: it holds the state of each parameter itself, and copies of what has another name.
    state = restored(own["state"], given["state"], f"{name}.state")
    others: dict[Any, Any] = {key: value for key, value in state.items() if type(key) is str}
    optimizer.state.update(others)
    groups = given["param_groups"]
    if not isinstance(groups, list) or len(groups) != len(optimizer.param_groups):
        raise ValueError(f"{name}.param_groups are not {len(optimizer.param_groups)}")
    for number, group in enumerate(optimizer.param_groups):
        where, its = f"{name}.param_groups.{number}", groups[number]
        if not isinstance(its, dict) or its.get("params") != own["param_groups"][number]["params"]:
            raise ValueError(f"{where}.params are others")
        for key in kept_in_group(optimizer, group):
            if key not in its:
                raise ValueError(f"{where}.{key} is missing")
            group[key] = restored(group[key], its[key], f"{where}.{key}")
    _require_counts(optimizer, name)


def _require_counts(optimizer: torch.optim.Optimizer, name: str) -> None:
    """Raises ValueError for a step count that none is: an optimizer divides by what follows from
    it."""
    for path, value in pytree.tree_flatten_with_path(optimizer.state_dict())[0]:
        if str(getattr(path[-1], "key", "")) == "step" and not 0 <= float(value) < math.inf:
            raise ValueError(f"{name}{pytree.keystr(path)} is {float(value)}: no step count")


def kept_in_group(optimizer: torch.optim.Optimizer, group: Group) -> list[str]:
    """The names that an optimizer itself keeps in a group, such as a step count: those that are
    neither arguments of its class nor ours."""
    configured = OURS | inspect.signature(type(optimizer)).parameters.keys()
    return [name for name in group if name not in configured]


def require_resumable(
    build: Callable[[list[Group]], torch.optim.Optimizer],
    groups: list[Group],
    device: torch.device,
    where: str,
) -> None:
    """Raises UsageError unless an optimizer can train such groups, and goes on after a checkpoint
    bit for bit. It is tried out, with little weights of the same numbers of axes: an optimizer may
    want a closure or sparse gradients, or keep something where nobody saves it."""
    try:
        with torch.random.fork_rng(devices=[]):
            straight, resumed = (_Trial(build, groups, device) for _ in range(2))
            straight.update(range(TRIED))
            resumed.load(straight.saved(), TRIED)
            for trial in (straight, resumed):
                trial.update(range(TRIED, 2 * TRIED))
        differing = _differing(straight.everything(), resumed.everything())
    except UsageError:
        raise
    except Exception as error:  # a class may raise anything
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UsageError(f"{where} can't train this model here: {reason}") from error
    if differing:
        raise UsageError(
            f"{where} can't be resumed bit for bit: after a checkpoint {differing} differs; an "
            "optimizer must keep all its state in `state` and `param_groups`"
        )


class _Trial:
    """Little weights in training."""

    def __init__(
        self,
        build: Callable[[list[Group]], torch.optim.Optimizer],
        groups: list[Group],
        device: torch.device,
    ) -> None:
        torch.manual_seed(0)
        small = [_small(group, device) for group in groups]
        self._weights: list[Tensor] = [weight for group in small for weight in group["params"]]
        for weight in self._weights:
            weight.grad = torch.zeros_like(weight)
        self._optimizer = build(small)

    def update(self, steps: range) -> None:
        for step in steps:
            torch.manual_seed(step)
            for weight in self._weights:
                assert weight.grad is not None, "the optimizer removed a gradient"
                weight.grad.normal_()
            for group in self._optimizer.param_groups:
                group["lr"] = group["peak_lr"] / (1 + step)
            self._optimizer.step()

    def everything(self) -> dict[str, Any]:
        return {
            "weights": [weight.detach() for weight in self._weights],
            "optimizer": self._optimizer.state_dict(),
        }

    def saved(self) -> io.BytesIO:
        file = io.BytesIO()
        torch.save(self.everything(), file)
        file.seek(0)
        return file

    @torch.no_grad()
    def load(self, file: io.BytesIO, updates: int) -> None:
        try:
            saved = torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise ValueError("its state is more than tensors and plain values") from error
        load_optimizer_state(self._optimizer, saved["optimizer"], updates)
        for weight, value in zip(self._weights, saved["weights"], strict=True):
            weight.copy_(value)


def _small(group: Group, device: torch.device) -> Group:
    """The group with a weight for each number of axes in it, of two values along each; one along
    those that stack matrices. Joint maps have one output each."""
    stack = group["stack"]
    kinds = {(p.dim(), bool(own)) for p, own in zip(group["params"], group["maps"], strict=True)}
    shapes = [((1,) * stack + (2,) * (count - stack), own) for count, own in sorted(kinds)]
    return group | {
        "params": [nn.Parameter(torch.randn(shape, device=device)) for shape, _ in shapes],
        "maps": [(1, 1) if own else () for _, own in shapes],
    }


def _differing(one: Any, other: Any) -> str | None:
    """The first entry in which two nests differ by a bit, or None."""
    for (path, value), (other_path, other_value) in zip(
        *(pytree.tree_flatten_with_path(nest)[0] for nest in (one, other)), strict=True
    ):
        if path != other_path or _bits(value) != _bits(other_value):
            return pytree.keystr(path)
    return None


def _bits(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return repr(value)
    data = value.cpu().contiguous().reshape(-1).view(torch.uint8)
    return value.dtype, value.shape, data.numpy().tobytes()
