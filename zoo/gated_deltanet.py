"""Gated DeltaNet: a memory that forgets, and that replaces what a key finds by its new value.

Yang, Kautz & Hatamizadeh, "Gated Delta Networks" (2024), arXiv 2412.06464, section 3; the block is
that of figure 1, and of Qwen3-Next. B batch, T time, C channels, H heads of N channels in a key and
D in a value.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.language_model import Cache
from zoo.layers.attention import CausalSelfAttention, KeyValues
from zoo.layers.causal_conv import CausalConv1d, LastInputs
from zoo.layers.checks import require_positive
from zoo.layers.dropout import Dropout
from zoo.layers.feed_forward import FeedForward
from zoo.layers.fla_kernels import Recurrence, require_recurrence
from zoo.layers.matrix_memory import gated_delta_memory
from zoo.layers.norms import make_norm
from zoo.layers.stack import Stack, StackedBlock
from zoo.mamba2 import initial_dt_bias
from zoo.roles import joint


class GatedDeltaNet(Stack):
    """n_layer blocks of width n_embd: a mixer, then SwiGLU, each added to the residual stream.

    n_key, n_value: channels of each head's keys and values. kernel_size: of the short convolutions
    of queries, keys and values. n_inner: the width of SwiGLU; null: 8/3·n_embd.
    attention_every: every such block has attention in place of the delta rule (4: three to one, as
    in Qwen3-Next), over the last `band` positions with rotary positions (the paper's hybrid,
    section 3.4), so that the past is of fixed size; null: none has.
    dropout: of the embeddings and of each addition to the residual stream.
    recurrence: torch, or fla: by flash-linear-attention's kernels in training and scores, on an
    NVIDIA GPU in bf16.
    """

    fixed_step = True

    def __init__(
        self,
        vocab_size: int,
        n_layer: int,
        n_head: int,
        n_embd: int,
        n_key: int,
        n_value: int,
        n_inner: int | None = None,
        kernel_size: int = 4,
        attention_every: int | None = None,
        band: int | None = None,
        dropout: float = 0.0,
        tie_weights: bool = True,
        recurrence: Recurrence = "torch",
    ) -> None:
        require_positive(
            n_layer=n_layer, n_embd=n_embd, n_head=n_head, n_key=n_key, n_value=n_value
        )
        if (attention_every is None) != (band is None):
            raise ValueError("attention_every and band are given together, or neither is")
        if attention_every is not None:
            require_positive(attention_every=attention_every)

        def mixer(layer: int) -> DeltaRule | BandedAttention:
            if attention_every is not None and band is not None and layer % attention_every == 0:
                return BandedAttention(n_embd, n_head, band)
            return DeltaRule(n_embd, n_head, n_key, n_value, kernel_size, recurrence)

        blocks = [
            DeltaBlock(mixer(layer), n_embd, n_inner, dropout) for layer in range(1, n_layer + 1)
        ]
        norm = make_norm("rms_norm", n_embd, bias=False)
        super().__init__(vocab_size, n_embd, blocks, norm, dropout, tie_weights)
        if attention_every == 1 and band is not None:
            self.receptive_field = 1 + n_layer * (band - 1)


class DeltaRule(nn.Module):
    """Each head keeps S[t] = exp(-dt·e^A_log)·(I - beta·kᵀ k)·S[t-1] + beta·kᵀ v and reads q·S[t];
    queries and keys have length 1."""

    def __init__(
        self,
        n_embd: int,
        n_head: int,
        n_key: int,
        n_value: int,
        kernel_size: int,
        recurrence: Recurrence = "torch",
    ) -> None:
        super().__init__()
        self.recurrence = require_recurrence(recurrence)
        self.shape = (n_head, n_key, n_value)
        width = n_head * (2 * n_key + n_value)
        self.widths = [width, n_head * n_value, n_head, n_head]
        maps = [n_key] * 2 * n_head + [n_value] * 2 * n_head + [n_head] * 2
        self.expand = joint(nn.Linear(n_embd, sum(maps), bias=False), maps)
        self.conv = CausalConv1d(width, width, kernel_size, depthwise=True, bias=False)
        self.dt_bias = nn.Parameter(initial_dt_bias(n_head))
        self.A_log = nn.Parameter(torch.empty(n_head).uniform_(1, 16).log())
        self.norm = make_norm("rms_norm", n_value, bias=False)
        self.projection = nn.Linear(n_head * n_value, n_embd, bias=False)

    def forward(self, x_BTC: Tensor, cache: Cache | None, name: str, past: int) -> Tensor:
        n_head, n_key, n_value = self.shape
        mixed, gate, beta_BTH, dt_BTH = self.expand(x_BTC).split(self.widths, dim=-1)
        mixed = F.silu(self.conv(mixed, LastInputs.of(cache, f"{name}.conv", past)))
        q_BHTN, k_BHTN, v_BHTD = (
            part.unflatten(-1, (n_head, -1)).transpose(1, 2)
            for part in mixed.split([n_head * n_key, n_head * n_key, n_head * n_value], dim=-1)
        )
        dt_BTH = F.softplus(dt_BTH.to(self.dt_bias.dtype) + self.dt_bias)
        y_BHTD, state = gated_delta_memory(
            F.normalize(q_BHTN, dim=-1) / n_key**0.5,
            F.normalize(k_BHTN, dim=-1),
            v_BHTD,
            (-self.A_log.exp() * dt_BTH).transpose(1, 2),
            beta_BTH.sigmoid().transpose(1, 2),
            None if cache is None else cache.tensors[f"{name}.state"],
            by=self.recurrence,
        )
        if cache is not None and state is not None:
            cache.tensors[f"{name}.state"] = state
        y_BTHD = self.norm(y_BHTD.transpose(1, 2)) * F.silu(gate.unflatten(-1, (n_head, n_value)))
        return self.projection(y_BTHD.flatten(-2))

    def empty(self, name: str, batch_size: int) -> dict[str, Tensor]:
        """The convolution's last inputs, and a state (B, H, N, D)."""
        return {
            f"{name}.conv.inputs": self.conv.empty(batch_size),
            f"{name}.state": self.A_log.new_zeros(batch_size, *self.shape),
        }


class BandedAttention(nn.Module):
    """Rotary attention over the last `band` positions, in the place of a delta rule."""

    def __init__(self, n_embd: int, n_head: int, band: int) -> None:
        super().__init__()
        self.band = band
        self.attention = CausalSelfAttention(
            n_embd, n_head, 0.0, False, band=band, rotary_theta=1e4, qk_norm=True
        )

    def forward(self, x_BTC: Tensor, cache: Cache | None, name: str, past: int) -> Tensor:
        return self.attention(x_BTC, KeyValues.of(cache, name, past))

    def empty(self, name: str, batch_size: int) -> dict[str, Tensor]:
        shape = self.attention.past_shape(batch_size, self.band)
        return KeyValues.buffers(name, shape, self.attention.projection.weight)


class DeltaBlock(StackedBlock):
    """A mixer, then SwiGLU, each normalized before and added to the residual stream."""

    def __init__(
        self,
        mixer: DeltaRule | BandedAttention,
        n_embd: int,
        n_inner: int | None,
        dropout: float,
    ) -> None:
        super().__init__()
        self.mixer_norm = make_norm("rms_norm", n_embd, bias=False)
        self.mixer = mixer
        self.feed_forward_norm = make_norm("rms_norm", n_embd, bias=False)
        self.feed_forward = FeedForward(n_embd, False, "swiglu", n_inner)
        self.dropout = Dropout(dropout)

    def forward(self, x_BTC: Tensor, cache: Cache | None, name: str, past: int) -> Tensor:
        x_BTC = x_BTC + self.dropout(self.mixer(self.mixer_norm(x_BTC), cache, name, past))
        return x_BTC + self.dropout(self.feed_forward(self.feed_forward_norm(x_BTC)))

    def empty(self, name: str, batch_size: int) -> dict[str, Tensor]:
        return self.mixer.empty(name, batch_size)
