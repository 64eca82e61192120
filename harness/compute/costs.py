"""The cost of a model: parameters and FLOPs."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from harness.compute.modes import eval_mode
from zoo.language_model import LanguageModel
from zoo.roles import roles


def parameters(model: nn.Module) -> dict[str, int]:
    """Numbers of total, active, trainable and embedding parameters; shared ones count once. active:
    without the experts that a token does not go through."""
    known = roles(model)
    idle = sum(getattr(module, "idle_parameters", 0) for module in model.modules())
    return {
        "total": (total := sum(p.numel() for p in model.parameters())),
        "active": total - idle,
        "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "embedding": sum(
            p.numel() for n, p in model.named_parameters() if (role := known[n]) and role.embedding
        ),
    }


_COUNTED: dict[Hashable, float] = {}


def step_flops(
    build: Callable[[], LanguageModel],
    seq_len: int,
    trained: slice = slice(None),
    decided_by: Hashable = None,
) -> float:
    """FLOPs of a forward and a backward pass over one sequence. Only the `trained` positions go
    through the head.

    decided_by: what decides the model; equal ones are counted once in a process, since a count
    takes a tenth of a second, and the jobs of a sweep and a resume have the same model.

    Counted by torch's FlopCounterMode on the meta device, or on the CPU where the model needs
    values: matrix products, triangular systems, convolutions and attention (without the causal
    mask), a multiply-add as two. Look-ups, norms and activations count as zero.
    """
    if decided_by is None:
        return _count(build, seq_len, trained, backward=True)
    key = (decided_by, seq_len, trained.indices(seq_len))
    if key not in _COUNTED:
        _COUNTED[key] = _count(build, seq_len, trained, backward=True)
    return _COUNTED[key]


def forward_flops(build: Callable[[], LanguageModel], seq_len: int) -> float:
    """FLOPs of a forward pass over one sequence."""
    return _count(build, seq_len, slice(None), backward=False)


def _count(
    build: Callable[[], LanguageModel], seq_len: int, positions: slice, backward: bool
) -> float:
    try:
        with torch.device("meta"):
            return _count_here(build, seq_len, positions, backward)
    except Exception:  # a model that looks at values, or keeps some elsewhere: with values, then
        # Of the ways to compute attention there, it knows this one.
        with torch.random.fork_rng([]), sdpa_kernel(SDPBackend.MATH):
            return _count_here(build, seq_len, positions, backward)


def _count_here(
    build: Callable[[], LanguageModel], seq_len: int, positions: slice, backward: bool
) -> float:
    """On torch's default device."""
    model = build()
    ids_BT = torch.zeros(1, seq_len, dtype=torch.int64)
    counter = FlopCounterMode(display=False, custom_mapping=COUNTED_HERE)
    # Batch normalization of a single position can only be evaluated.
    with eval_mode(model), counter:
        logits_BTV = model.head(model(ids_BT, return_features=True)[:, positions])
        if backward and logits_BTV.requires_grad:  # a model that counts has no parameters
            logits_BTV.sum().backward()
    return counter.get_total_flops()


def _triangular_system(system: Sequence[int], sides: Sequence[int], *_: Any, **__: Any) -> int:
    """Half of a matrix product, since half of the system is zero."""
    return math.prod(sides) * system[-1]


def _convolution_backward(
    grad_output: Sequence[int], inputs: Sequence[int], weight: Sequence[int], *rest: Any, **_: Any
) -> int:
    """Each gradient, by the inputs and by the weight, costs as much as the convolution. torch takes
    that by the weight for one group's, as if each channel of a depthwise one saw all others."""
    transposed, wanted = rest[4], rest[7]
    positions = inputs if transposed else grad_output
    return 2 * math.prod(positions) * math.prod(weight[1:]) * sum(wanted[:2])


# What torch does not count, or not rightly.
COUNTED_HERE = {
    torch.ops.aten.linalg_solve_triangular: _triangular_system,
    torch.ops.aten.convolution_backward: _convolution_backward,
}


class NoInitialization(TorchFunctionMode):
    """Skips random initialization. On the meta device there are no weights to initialize, and
    torch would load its compiler for the random functions, which takes a second."""

    SKIPPED = frozenset(
        {
            *("normal_", "uniform_", "trunc_normal_", "kaiming_normal_", "kaiming_uniform_"),
            *("xavier_normal_", "xavier_uniform_", "orthogonal_"),
        }
    )

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", None) in self.SKIPPED:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
