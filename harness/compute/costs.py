"""What a model costs: parameters, floating-point operations, memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from zoo.language_model import LanguageModel
from zoo.roles import roles


def parameters(model: nn.Module) -> dict[str, int]:
    """Total, trainable and embedding parameters; shared ones count once."""
    known = roles(model)
    return {
        "total": sum(p.numel() for p in model.parameters()),
        "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "embedding": sum(
            p.numel() for n, p in model.named_parameters() if (role := known[n]) and role.embedding
        ),
    }


def step_flops(
    build: Callable[[], LanguageModel], seq_len: int, trained: slice = slice(None)
) -> float:
    """Floating-point operations of a forward and a backward pass over one sequence, of which the
    `trained` positions go through the head.

    Counted by torch's FlopCounterMode: matrix products, convolutions and attention (in full, though
    the causal half would do), a multiplication and an addition as two. Look-ups, norms and
    activations count as nothing. On the meta device, so that nothing is computed.
    """
    return _count(build, seq_len, trained, backward=True)


def forward_flops(build: Callable[[], LanguageModel], seq_len: int) -> float:
    """Those of a forward pass over one whole sequence."""
    return _count(build, seq_len, slice(None), backward=False)


def _count(
    build: Callable[[], LanguageModel],
    seq_len: int,
    positions: slice,
    backward: bool,
) -> float:
    with torch.device("meta"):
        model = build()
        ids_BT = torch.zeros(1, seq_len, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        logits_BTV = model.head(model(ids_BT, return_features=True)[:, positions])
        if backward:
            logits_BTV.sum().backward()
    return counter.get_total_flops()


class Undrawn(TorchFunctionMode):
    """Inside it no random number is drawn into a tensor. On the meta device, where a model has no
    weights to draw, torch would load its compiler for it, which takes a second."""

    DRAWS = frozenset(
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
        if getattr(func, "__name__", None) in self.DRAWS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
