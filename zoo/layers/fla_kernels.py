"""The recurrences of matrix_memory by the Triton kernels of flash-linear-attention (Yang & Zhang,
github.com/fla-org/flash-linear-attention), a package that is optional.

They compute in bf16 on an NVIDIA GPU, T before H, and round where ours promote to fp32. Arguments
and letters are those of matrix_memory; none takes or returns a state.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Literal

import torch
from torch import Tensor

Recurrence = Literal["torch", "fla"]


def require_recurrence(recurrence: Recurrence) -> Recurrence:
    """It itself. Raises ValueError if its package is not here."""
    if recurrence == "fla" and importlib.util.find_spec("fla") is None:
        raise ValueError(
            "recurrence=fla needs the package flash-linear-attention: pip install "
            "'flash-linear-attention>=0.5,<0.6'"
        )
    return recurrence


def can_compute(value: Tensor) -> bool:
    """Whether the kernels are for what is computed here: bf16 on an NVIDIA GPU. Some of their
    inputs are fp32 even then, and are rounded."""
    return (
        value.is_cuda
        and torch.is_autocast_enabled("cuda")
        and torch.get_autocast_dtype("cuda") == torch.bfloat16
    )


def decaying_memory(
    q_BHTN: Tensor, k_BHTN: Tensor, v_BHTD: Tensor, log_decay_BHT: Tensor
) -> Tensor:
    """By simple_gla: gated linear attention with a decay for each head."""
    one_each = (-1, v_BHTD.shape[1], -1, -1)
    q, k, v = _rounded(q_BHTN.expand(one_each), k_BHTN.expand(one_each), v_BHTD)
    return _call("simple_gla", "chunk_simple_gla", q=q, k=k, v=v, g=log_decay_BHT)


def gated_delta_memory(
    q_BHTN: Tensor, k_BHTN: Tensor, v_BHTD: Tensor, log_decay_BHT: Tensor, beta_BHT: Tensor
) -> Tensor:
    """By the kernel of Gated DeltaNet."""
    q, k, v, beta = _rounded(q_BHTN, k_BHTN, v_BHTD, beta_BHT)
    return _call(
        "gated_delta_rule", "chunk_gated_delta_rule", q=q, k=k, v=v, g=log_decay_BHT, beta=beta
    )


def generalized_delta_memory(
    r_BHTN: Tensor,
    log_decay_BHTN: Tensor,
    k_BHTN: Tensor,
    v_BHTD: Tensor,
    removed_BHTN: Tensor,
    replaced_BHTN: Tensor,
) -> Tensor:
    """By the kernel of RWKV-7, which adds what it removes: its `a` is negative."""
    r, k, v, a, b = _rounded(r_BHTN, k_BHTN, v_BHTD, -removed_BHTN, replaced_BHTN)
    return _call("rwkv7", "chunk_rwkv7", r=r, w=log_decay_BHTN, k=k, v=v, a=a, b=b)


def _rounded(*inputs: Tensor) -> list[Tensor]:
    """To the precision of the kernels, on a GPU."""
    return [x.bfloat16() if x.is_cuda else x for x in inputs]


def _call(folder: str, kernel: str, **inputs: Tensor) -> Tensor:
    """Their default scale is 1/√N; ours is in the queries."""
    module = importlib.import_module(f"fla.ops.{folder}")
    turned = {name: x.transpose(1, 2).contiguous() for name, x in inputs.items()}
    y_BTHD: Tensor = getattr(module, kernel)(**turned, scale=1.0)[0]
    return y_BTHD.transpose(1, 2)
