"""Rotary positions (Su et al. 2021, RoFormer, arXiv 2104.09864, section 3.2).

B batch, H heads, T time, D channels of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotate(x_BHTD: Tensor, positions: Tensor, theta: float) -> Tensor:
    """Turn each pair of channels by its position times theta^(-2i/D), i the pair's number.

    positions: of all rows, (T,), or of each, (B, 1, T).

    A pair is channel i and channel i + D/2, as in GPT-NeoX and Llama's checkpoints; the paper pairs
    neighbours, which is the same up to the order of the channels. Angles are computed in float32
    (or better, if x is), because bfloat16 can't tell position 256 from 257.
    """
    half, dtype = x_BHTD.shape[-1] // 2, torch.promote_types(x_BHTD.dtype, torch.float32)
    pairs_D = torch.arange(half, device=x_BHTD.device, dtype=dtype)
    angles = positions[..., None] * theta ** (-pairs_D / half)
    cos, sin = angles.cos(), angles.sin()
    left_BHTD, right_BHTD = x_BHTD.to(dtype).chunk(2, dim=-1)
    return torch.cat(
        [left_BHTD * cos - right_BHTD * sin, right_BHTD * cos + left_BHTD * sin],
        dim=-1,
    ).to(x_BHTD.dtype)
