"""xLSTM's mLSTM: long short-term memory with a matrix for a cell.

Beck et al., "xLSTM: Extended Long Short-Term Memory" (2024), arXiv 2405.04517, section 2.3; gates
capped and the block as in xLSTM 7B (Beck et al. 2025, arXiv 2503.13427, section 3).
B batch, T time, C channels, H heads of N channels in a key and D in a value.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.language_model import Cache
from zoo.layers.checks import require_positive
from zoo.layers.dropout import Dropout
from zoo.layers.feed_forward import FeedForward
from zoo.layers.fla_kernels import Recurrence, require_recurrence
from zoo.layers.matrix_memory import decaying_memory
from zoo.layers.norms import make_norm
from zoo.layers.stack import Stack, StackedBlock
from zoo.roles import joint

GATE_CAP = 15.0


class MLSTM(Stack):
    """n_layer blocks of width n_embd: an mLSTM, then SwiGLU, each added to the residual stream.

    n_key, n_value: channels of each head's keys and values. n_inner: the width of SwiGLU; null:
    8/3·n_embd. dropout: of the embeddings and of each addition to the residual stream. recurrence:
    torch, or fla: by flash-linear-attention's kernels in training and scores, on an NVIDIA GPU in
    bf16.
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
        dropout: float = 0.0,
        tie_weights: bool = True,
        recurrence: Recurrence = "torch",
    ) -> None:
        require_positive(
            n_layer=n_layer, n_embd=n_embd, n_head=n_head, n_key=n_key, n_value=n_value
        )
        blocks = [
            MLSTMBlock(n_embd, n_head, n_key, n_value, n_inner, dropout, recurrence)
            for _ in range(n_layer)
        ]
        norm = make_norm("rms_norm", n_embd, bias=False)
        super().__init__(vocab_size, n_embd, blocks, norm, dropout, tie_weights)


class MLSTMBlock(StackedBlock):
    """Each head keeps a matrix C[t] = f·C[t-1] + i·kᵀ v and a vector n[t] = f·n[t-1] + i·k, and
    reads q·C[t] / max(|q·n[t]|, 1); i is an exponential, f a sigmoid.

    The paper divides both by the largest gate so far, to keep exp(i) in range. With gates capped at
    ±15 no number can leave the range of fp32, so nothing is divided.
    """

    def __init__(
        self,
        n_embd: int,
        n_head: int,
        n_key: int,
        n_value: int,
        n_inner: int | None,
        dropout: float,
        recurrence: Recurrence = "torch",
    ) -> None:
        super().__init__()
        self.recurrence = require_recurrence(recurrence)
        self.shape = (n_head, n_key, n_value)
        self.widths = [n_head * n_key, n_head * n_key, n_head * n_value, n_head * n_value]
        self.input_norm = make_norm("rms_norm", n_embd, bias=False)
        maps = [n_key] * 2 * n_head + [n_value] * 2 * n_head
        self.expand = joint(nn.Linear(n_embd, sum(maps), bias=False), maps)
        self.gates = nn.Linear(n_embd, 2 * n_head, bias=False)
        self.input_bias = nn.Parameter(torch.full((n_head,), -10.0))
        self.forget_bias = nn.Parameter(torch.linspace(3.0, 6.0, n_head))
        self.norm = nn.LayerNorm(n_value, elementwise_affine=False)
        self.norm_scale = nn.Parameter(torch.ones(n_head * n_value))
        self.projection = nn.Linear(n_head * n_value, n_embd, bias=False)
        self.feed_forward_norm = make_norm("rms_norm", n_embd, bias=False)
        self.feed_forward = FeedForward(n_embd, False, "swiglu", n_inner)
        self.dropout = Dropout(dropout)

    def forward(self, x_BTC: Tensor, cache: Cache | None, name: str, past: int) -> Tensor:
        x_BTC = x_BTC + self.dropout(self._memory(self.input_norm(x_BTC), cache, f"{name}.state"))
        return x_BTC + self.dropout(self.feed_forward(self.feed_forward_norm(x_BTC)))

    def _memory(self, x_BTC: Tensor, cache: Cache | None, name: str) -> Tensor:
        n_head, n_key, _ = self.shape
        q_BHTN, k_BHTN, v_BHTD, gate_BHTD = (
            part.unflatten(-1, (n_head, -1)).transpose(1, 2)
            for part in self.expand(x_BTC).split(self.widths, dim=-1)
        )
        i_BTH, f_BTH = self.gates(x_BTC).to(self.input_bias.dtype).chunk(2, dim=-1)
        i_BHT = _cap(i_BTH + self.input_bias).transpose(1, 2)
        f_BHT = _cap(f_BTH + self.forget_bias).transpose(1, 2)
        y_BHTD, state = decaying_memory(
            q_BHTN / n_key**0.5,
            k_BHTN * i_BHT.exp()[..., None],
            F.pad(v_BHTD, (0, 1), value=1.0),  # the last channel is n
            F.logsigmoid(f_BHT),
            None if cache is None else cache.tensors[name],
            by=self.recurrence,
        )
        if cache is not None and state is not None:
            cache.tensors[name] = state
        y_BHTD = y_BHTD[..., :-1] / y_BHTD[..., -1:].abs().clamp(min=1.0)
        y_BTC = self.norm_scale * self.norm(y_BHTD).transpose(1, 2).flatten(-2)
        return self.projection(gate_BHTD.sigmoid().transpose(1, 2).flatten(-2) * y_BTC)

    def empty(self, name: str, batch_size: int) -> dict[str, Tensor]:
        """C and n side by side, (B, H, N, D + 1)."""
        n_head, n_key, n_value = self.shape
        state_BHND = self.norm_scale.new_zeros(batch_size, n_head, n_key, n_value + 1)
        return {f"{name}.state": state_BHND}


def _cap(x: Tensor) -> Tensor:
    return GATE_CAP * torch.tanh(x / GATE_CAP)
