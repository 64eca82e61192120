"""The position-wise feed-forward network (Vaswani et al. 2017, arXiv 1706.03762, section 3.3).

B batch, T time, C channels.
"""

from __future__ import annotations

import math
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

Activation = Literal["gelu", "gelu_exact", "relu", "relu2", "swiglu"]

ACTIVATIONS = {
    # The tanh form, as GPT-2 has it (Hendrycks & Gimpel 2016, arXiv 1606.08415).
    "gelu": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_exact": F.gelu,  # by the error function, as nanoGPT has it; on a CPU four times as fast
    "relu": F.relu,
    # So et al. 2021 (Primer, arXiv 2109.08668), section 4.2.
    "relu2": lambda x: F.relu(x).square(),
    # Shazeer 2020 (arXiv 2002.05202), section 2: the half behind the gate passes through SiLU.
    "swiglu": lambda x: F.silu(x.chunk(2, dim=-1)[0]) * x.chunk(2, dim=-1)[1],
}


class FeedForward(nn.Module):
    """Two linear maps around an activation.

    n_inner: the width between them. None: 4·n_embd, or for SwiGLU, whose first map is twice as
    wide, 8/3·n_embd (up to a multiple of 8), for the same number of parameters (Shazeer 2020,
    section 3).
    """

    def __init__(
        self, n_embd: int, bias: bool, activation: Activation = "gelu", n_inner: int | None = None
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation={activation!r} is not one of {', '.join(ACTIVATIONS)}")
        if n_inner is not None and n_inner < 1:
            raise ValueError(f"n_inner={n_inner} must be at least 1")
        gates = 2 if activation == "swiglu" else 1
        n_inner = n_inner or (8 * math.ceil(n_embd / 3) if gates == 2 else 4 * n_embd)
        self.activation = ACTIVATIONS[activation]
        self.expand = nn.Linear(n_embd, gates * n_inner, bias=bias)
        self.projection = nn.Linear(n_inner, n_embd, bias=bias)

    def forward(self, x_BTC: Tensor) -> Tensor:
        return self.projection(self.activation(self.expand(x_BTC)))
