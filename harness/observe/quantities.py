"""Measurements of tensors: histogram, spectral norm, attention entropy.

B batch, H heads, T time (queries), S keys, D channels of a head.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from harness.common.rows import Histogram

BINS = 32
LARGE = 1e38  # the difference of two such numbers is finite in fp32
MAX_WEIGHTS = 2**24  # attention weights computed in one call
LANCZOS_STEPS = 24


def histogram(values: Tensor, bins: int = BINS) -> Histogram | None:
    """Of the values below 1e38, in equal bins from the least to the largest; None without any.
    Deterministic on a GPU, unlike torch.histc."""
    flat = values.detach().flatten().float()
    if not len(flat):
        return None
    low, high = (bound.item() for bound in flat.aminmax())
    if not math.isfinite(high - low):
        return histogram(flat[flat.abs() < LARGE], bins)
    if low == high:
        low, high = low - 0.5, high + 0.5
    index = ((flat - low) / (high - low) * bins).long().clamp_(0, bins - 1)
    edges = [low + (high - low) * i / bins for i in range(bins + 1)]
    # fp32's digits are enough, and keep rows short.
    return Histogram(
        torch.bincount(index, minlength=bins).tolist(), [float(f"{edge:.7g}") for edge in edges]
    )


def spectral_norm(weight: Tensor) -> Tensor:
    """The largest singular value, (), of a matrix or of a kernel reshaped to (out, in · width).

    By the Lanczos method on WᵀW with full reorthogonalization (Golub & Van Loan, Matrix
    Computations, section 10.1): exact for up to LANCZOS_STEPS rows or columns, within half a
    percent for larger ones. Uses a generator of its own.
    """
    matrix = weight.detach().flatten(1).float()
    matrix = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.mT
    largest = matrix.abs().max()
    if not 0 < largest < math.inf:
        return largest
    matrix = matrix / largest  # so that no square overflows
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(matrix.shape[1], generator=generator).to(matrix.device)
    basis = matrix.new_zeros(matrix.shape[1], min(LANCZOS_STEPS, matrix.shape[1]))
    for step in range(basis.shape[1]):
        whole = vector.norm()
        for _ in range(2):  # twice is enough (Parlett)
            vector = vector - basis @ (basis.mT @ vector)
        size = vector.norm()
        if size <= 1e-5 * whole:  # only rounding errors are left: the basis is complete
            break
        basis[:, step] = vector / size
        vector = matrix.mT @ (matrix @ basis[:, step])
    inside = matrix @ basis
    return torch.linalg.eigvalsh(inside.mT @ inside)[-1].clamp(min=0).sqrt() * largest


@torch.no_grad()
def attention_entropy(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """The entropy of the attention weights of F.scaled_dot_product_attention with these arguments,
    in nats, without dropout: (B, H, T). Of a large batch, some rows and evenly spaced queries."""
    heads, time, keys = query.shape[1], query.shape[2], key.shape[2]
    rows = max(1, MAX_WEIGHTS // (heads * time * keys))
    every = math.ceil(heads * time * keys / MAX_WEIGHTS)
    with torch.autocast(query.device.type, enabled=False):
        q_BHTD, k_BHSD = query[:rows, :, ::every].float(), key[:rows].float()
        if enable_gqa:
            k_BHSD = k_BHSD.repeat_interleave(heads // k_BHSD.shape[1], dim=1)
        scale = scale if scale is not None else 1 / math.sqrt(query.shape[-1])
        scores_BHTS = q_BHTD @ k_BHSD.mT * scale
    if is_causal:
        attn_mask = torch.ones(time, keys, dtype=torch.bool, device=query.device).tril()
    if attn_mask is not None:
        mask = attn_mask[:rows] if attn_mask.dim() == 4 else attn_mask
        mask = mask[..., ::every, :] if mask.shape[-2] == time else mask
        if mask.dtype == torch.bool:
            scores_BHTS = scores_BHTS.masked_fill(~mask, -math.inf)
        else:
            scores_BHTS = scores_BHTS + mask
    return entropy_of_weights(scores_BHTS.softmax(-1))


def entropy_of_weights(weights_BHTS: Tensor) -> Tensor:
    """The entropy of each distribution over the S keys, (B, H, T)."""
    return torch.special.entr(weights_BHTS.float()).sum(-1)
