"""The pre-norm transformer block (Radford et al. 2019, GPT-2, section 2.3)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.layers.attention import CausalSelfAttention, KeyValues


class FeedForward(nn.Module):
    """Two linear maps around a GELU (the tanh form, as in GPT-2), four times as wide inside."""

    def __init__(self, n_embd: int, bias: bool) -> None:
        super().__init__()
        self.expand = nn.Linear(n_embd, 4 * n_embd, bias=bias)
        self.projection = nn.Linear(4 * n_embd, n_embd, bias=bias)

    def forward(self, x_BTC: Tensor) -> Tensor:
        return self.projection(F.gelu(self.expand(x_BTC), approximate="tanh"))


class Block(nn.Module):
    """Attention and feed-forward, each normalized before and added to the residual stream."""

    def __init__(self, n_embd: int, n_head: int, dropout: float, bias: bool) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(n_embd, bias=bias)
        self.attention = CausalSelfAttention(n_embd, n_head, dropout, bias)
        self.feed_forward_norm = nn.LayerNorm(n_embd, bias=bias)
        self.feed_forward = FeedForward(n_embd, bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTC: Tensor, past: KeyValues | None = None) -> Tensor:
        x_BTC = x_BTC + self.dropout(self.attention(self.attention_norm(x_BTC), past))
        return x_BTC + self.dropout(self.feed_forward(self.feed_forward_norm(x_BTC)))
