"""The transformer block (Vaswani et al. 2017, arXiv 1706.03762; Radford et al. 2019, GPT-2)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from zoo.layers.attention import CausalSelfAttention, KeyValues
from zoo.layers.dropout import Dropout, StochasticDepth
from zoo.layers.experts import MixtureOfExperts
from zoo.layers.feed_forward import Activation, FeedForward
from zoo.layers.norms import Norm, make_norm


class Block(nn.Module):
    """Attention, then feed-forward, each added to the residual stream.

    Each is normalized before (pre-norm, GPT-2), or the sum is normalized after it (post_norm:
    Vaswani et al. and GPT-1). dropout: on the attention weights and on both
    additions. attention_dropout: on the attention weights; None: dropout. stochastic_depth: the
    probability of dropping an addition. n_expert: a mixture of so many experts in place of the
    feed-forward, n_expert_active of them for each token; None: none. `attention`: see
    CausalSelfAttention.
    """

    def __init__(
        self,
        n_embd: int,
        n_head: int,
        dropout: float,
        bias: bool,
        *,
        activation: Activation = "gelu",
        n_inner: int | None = None,
        norm: Norm = "layer_norm",
        post_norm: bool = False,
        attention_dropout: float | None = None,
        stochastic_depth: float = 0.0,
        n_expert: int | None = None,
        n_expert_active: int = 2,
        **attention: Any,
    ) -> None:
        super().__init__()
        attention_dropout = dropout if attention_dropout is None else attention_dropout
        self.post_norm = post_norm
        self.attention_norm = make_norm(norm, n_embd, bias)
        self.attention = CausalSelfAttention(n_embd, n_head, attention_dropout, bias, **attention)
        self.feed_forward_norm = make_norm(norm, n_embd, bias)
        self.feed_forward = (
            FeedForward(n_embd, bias, activation, n_inner)
            if n_expert is None
            else MixtureOfExperts(n_embd, bias, activation, n_inner, n_expert, n_expert_active)
        )
        self.dropout: nn.Module = Dropout(dropout)
        if stochastic_depth:
            self.dropout = nn.Sequential(self.dropout, StochasticDepth(stochastic_depth))

    def forward(
        self,
        x_BTC: Tensor,
        past: KeyValues | None = None,
        losses: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """losses: experts add theirs to it."""
        wanted = [losses] if isinstance(self.feed_forward, MixtureOfExperts) else []
        if self.post_norm:
            x_BTC = self.attention_norm(x_BTC + self.dropout(self.attention(x_BTC, past)))
            return self.feed_forward_norm(x_BTC + self.dropout(self.feed_forward(x_BTC, *wanted)))
        x_BTC = x_BTC + self.dropout(self.attention(self.attention_norm(x_BTC), past))
        y_BTC = self.feed_forward(self.feed_forward_norm(x_BTC), *wanted)
        return x_BTC + self.dropout(y_BTC)
