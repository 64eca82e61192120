"""Ways to tell a transformer where a token is, without parameters.

T time, S keys, C channels, H heads.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Positions = Literal["learned", "sinusoidal", "rope", "alibi", "none"]


def sinusoids(positions_T: Tensor, channels: int, dtype: torch.dtype) -> Tensor:
    """(T, C): sin and cos of position / 10000^(2i/C) in channels 2i and 2i + 1 (Vaswani et al.
    2017, arXiv 1706.03762, section 3.5). Computed in float32 or better."""
    wide = torch.promote_types(dtype, torch.float32)
    even_C = torch.arange(0, channels, 2, device=positions_T.device, dtype=wide)
    angles_TC = positions_T[:, None] * 10000.0 ** (-even_C / channels)
    waves_TC = torch.stack([angles_TC.sin(), angles_TC.cos()], dim=-1).flatten(1)
    return waves_TC[:, :channels].to(dtype)


def alibi_slopes(n_head: int) -> list[float]:
    """By how much each head's scores fall with a key's distance: 2^(-8h/H), h from 1 to H (Press et
    al. 2022, ALiBi, arXiv 2108.12409, section 3). If H is no power of two: those of the power below
    it, then every other one of twice that power, as in the authors' code."""
    power = 2 ** int(math.log2(n_head))
    slopes = [2.0 ** (-8 * h / power) for h in range(1, power + 1)]
    return slopes + [2.0 ** (-4 * h / power) for h in range(1, 2 * power, 2)][: n_head - power]


def alibi_bias(slopes: list[float], time: int, keys: int, like: Tensor) -> Tensor:
    """(H, T, S): what is added to the scores of the last T of S positions."""
    at_S = torch.arange(keys, device=like.device)
    distance_TS = at_S[keys - time :, None] - at_S
    return torch.tensor(slopes, device=like.device, dtype=like.dtype)[:, None, None] * -distance_TS
