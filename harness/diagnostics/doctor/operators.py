"""Each operator that a model calls, against the same operator in float64 on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

# An operator may be off by this much of what one rounding of its inputs and of its result changes.
FACTOR = 16.0
CPU = torch.device("cpu")


@dataclass(frozen=True)
class WrongOperator:
    """excess: its error, in units of what rounding explains."""

    name: str
    shapes: str
    excess: float

    def __str__(self) -> str:
        return f"{self.name}({self.shapes}) is off by {self.excess:,.0f} × what rounding explains"


class OperatorCheck(TorchDispatchMode):
    """Inside, every operator is computed twice, once for each choice of shapes and types: as the
    device does, and in float64 on the CPU from the same inputs. The device's results are passed on.

    wrong: those off by more than rounding. checked: how many were compared. unchecked: the names of
    those that have no such second way. worst: the largest error, in units of what rounding explains
    (FACTOR times as much is wrong).
    """

    def __init__(self) -> None:
        super().__init__()
        self.wrong: list[WrongOperator] = []
        self.unchecked: set[str] = set()
        self.checked = 0
        self.worst = 0.0
        self._seen: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        inputs = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        shapes = ", ".join(map(_described, inputs))
        key = f"{func}({shapes})"
        # A view has its input's values, and neither random nor uninitialized ones can be compared.
        random = torch.Tag.nondeterministic_seeded in func.tags or "empty" in func.name()
        if (
            func.is_view
            or random
            or key in self._seen
            or not any(x.is_floating_point() for x in inputs)
        ):
            return func(*args, **kwargs)
        self._seen.add(key)
        kept = pytree.tree_map(_in_float64, (args, kwargs))  # before: it may change them in place
        result = func(*args, **kwargs)
        if not _floating(result):
            return result
        unit = max(torch.finfo(x.dtype).eps for x in _floating((inputs, result)))
        try:
            excess = _excess(func, kept, result, unit)
        except Exception:  # there is no such kernel for float64 on the CPU
            self.unchecked.add(str(func))
            return result
        self.checked += 1
        self.worst = max(self.worst, excess)
        if not excess <= FACTOR:
            self.wrong.append(WrongOperator(str(func).removeprefix("aten."), shapes, excess))
        return result


def _excess(func: Callable[..., Any], kept: Any, result: Any, unit: float) -> float:
    """The largest error of a result, in units of what rounding changes by one rounding of each
    input and of the result."""
    args, kwargs = kept
    exact = func(*pytree.tree_map(_cloned, args), **pytree.tree_map(_cloned, kwargs))
    generator = torch.Generator().manual_seed(0)

    def rounded(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return _cloned(value)
        noise = torch.rand(value.shape, generator=generator, dtype=value.dtype) * 2 - 1
        return value * (1 + unit * noise)

    moved = func(*pytree.tree_map(rounded, args), **pytree.tree_map(rounded, kwargs))
    worst = 0.0
    for own, right, other in zip(*map(_floating, (result, exact, moved)), strict=True):
        finite = right.isfinite()
        got = own.detach().to(CPU, torch.float64)
        if got.shape != right.shape or not torch.equal(got.isfinite(), finite):
            return float("inf")
        if not finite.any():
            continue
        right, other, got = right[finite], other[finite], got[finite]
        allowed = unit * right.abs().max() + (other - right).abs().nan_to_num().max()
        error = (got - right).abs().max()
        worst = max(worst, float(error / allowed) if error else 0.0)
    return worst


def _floating(nest: Any) -> list[Tensor]:
    leaves = pytree.tree_leaves(nest)
    return [x for x in leaves if isinstance(x, Tensor) and x.is_floating_point()]


def _in_float64(value: Any) -> Any:
    if isinstance(value, Tensor):
        dtype = torch.float64 if value.is_floating_point() else value.dtype
        return value.detach().to(CPU, dtype, copy=True)
    if isinstance(value, torch.dtype) and value.is_floating_point:
        return torch.float64
    return CPU if isinstance(value, torch.device) else value


def _cloned(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {'×'.join(map(str, tensor.shape)) or '()'}"
