"""Mamba-2: selective state spaces, computed as masked attention within chunks.

Dao & Gu, "Transformers are SSMs" (2024), arXiv 2405.21060, sections 6 and 7.1; the block is that of
the authors' code, with one group of B and C. B batch, T time, C channels, I inner channels, H heads
of D channels, N channels of a head's state.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.language_model import Cache
from zoo.layers.causal_conv import CausalConv1d, LastInputs
from zoo.layers.checks import require_positive
from zoo.layers.dropout import Dropout
from zoo.layers.fla_kernels import Recurrence, require_recurrence
from zoo.layers.matrix_memory import decaying_memory
from zoo.layers.norms import make_norm
from zoo.layers.stack import Stack, StackedBlock
from zoo.roles import joint


class Mamba2(Stack):
    """n_layer blocks of width n_embd, each without a feed-forward network.

    expand: the inner width is expand·n_embd. n_head_channels: a head's share of it. n_state: the
    channels of each head's state. kernel_size: of the short convolution before the state.
    dropout: of the embeddings and of each addition to the residual stream.
    recurrence: torch, or fla: by flash-linear-attention's kernels in training and scores, on an
    NVIDIA GPU in bf16.
    """

    fixed_step = True

    def __init__(
        self,
        vocab_size: int,
        n_layer: int,
        n_embd: int,
        n_state: int = 64,
        n_head_channels: int = 64,
        expand: int = 2,
        kernel_size: int = 4,
        dropout: float = 0.0,
        tie_weights: bool = True,
        recurrence: Recurrence = "torch",
    ) -> None:
        require_positive(
            n_layer=n_layer, n_embd=n_embd, n_state=n_state, n_head_channels=n_head_channels,
            expand=expand,
        )  # fmt: skip
        if expand * n_embd % n_head_channels:
            raise ValueError(
                f"expand·n_embd={expand * n_embd} is not a multiple of "
                f"n_head_channels={n_head_channels}"
            )
        blocks = [
            Mamba2Block(
                n_embd, expand * n_embd, n_head_channels, n_state, kernel_size, dropout, recurrence
            )
            for _ in range(n_layer)
        ]
        norm = make_norm("rms_norm", n_embd, bias=False)
        super().__init__(vocab_size, n_embd, blocks, norm, dropout, tie_weights)


class Mamba2Block(StackedBlock):
    """x + projection(norm(y · SiLU(z))), where each head's y reads a decaying sum over the past:
    S[t] = exp(-dt·e^A_log)·S[t-1] + dt·B[t]ᵀ x[t], y[t] = C[t]·S[t] + skip·x[t]."""

    def __init__(
        self,
        n_embd: int,
        n_inner: int,
        n_head_channels: int,
        n_state: int,
        kernel_size: int,
        dropout: float,
        recurrence: Recurrence = "torch",
    ) -> None:
        super().__init__()
        self.recurrence = require_recurrence(recurrence)
        n_head = n_inner // n_head_channels
        self.shape = (n_head, n_state, n_head_channels)
        self.widths = [n_inner, n_inner + 2 * n_state, n_head]
        self.input_norm = make_norm("rms_norm", n_embd, bias=False)
        channels = [n_head_channels] * n_head
        maps = [*channels, *channels, n_state, n_state, n_head]
        self.expand = joint(nn.Linear(n_embd, sum(maps), bias=False), maps)
        width = self.widths[1]
        self.conv = CausalConv1d(width, width, kernel_size, depthwise=True)
        self.dt_bias = nn.Parameter(initial_dt_bias(n_head))
        self.A_log = nn.Parameter(torch.empty(n_head).uniform_(1, 16).log())
        self.skip = nn.Parameter(torch.ones(n_head))
        self.norm = make_norm("rms_norm", n_inner, bias=False)
        self.projection = nn.Linear(n_inner, n_embd, bias=False)
        self.dropout = Dropout(dropout)

    def forward(self, x_BTC: Tensor, cache: Cache | None, name: str, past: int) -> Tensor:
        n_head, n_state, n_channels = self.shape
        gate_BTI, mixed, dt_BTH = self.expand(self.input_norm(x_BTC)).split(self.widths, dim=-1)
        mixed = F.silu(self.conv(mixed, LastInputs.of(cache, f"{name}.conv", past)))
        v_BTI, b_BTN, c_BTN = mixed.split([n_head * n_channels, n_state, n_state], dim=-1)
        dt_BTH = F.softplus(dt_BTH.to(self.dt_bias.dtype) + self.dt_bias)
        v_BTHD = v_BTI.unflatten(-1, (n_head, n_channels))
        y_BHTD, state = decaying_memory(
            c_BTN[:, None],
            b_BTN[:, None],
            (v_BTHD * dt_BTH[..., None]).transpose(1, 2),
            (-self.A_log.exp() * dt_BTH).transpose(1, 2),
            None if cache is None else cache.tensors[f"{name}.state"],
            by=self.recurrence,
        )
        if cache is not None and state is not None:
            cache.tensors[f"{name}.state"] = state
        y_BTHD = y_BHTD.transpose(1, 2) + self.skip[:, None] * v_BTHD
        y_BTC = self.projection(self.norm(y_BTHD.flatten(-2) * F.silu(gate_BTI)))
        return x_BTC + self.dropout(y_BTC)

    def empty(self, name: str, batch_size: int) -> dict[str, Tensor]:
        """The convolution's last inputs, and a state (B, H, N, D)."""
        return {
            f"{name}.conv.inputs": self.conv.empty(batch_size),
            f"{name}.state": self.skip.new_zeros(batch_size, *self.shape),
        }


def initial_dt_bias(n_head: int) -> Tensor:
    """The inverse softplus of step sizes drawn log-uniformly from 0.001 to 0.1 (Gu & Dao 2023,
    arXiv 2312.00752, section 3.6)."""
    dt = torch.empty(n_head).uniform_(math.log(0.001), math.log(0.1)).exp()
    return dt + (-torch.expm1(-dt)).log()
