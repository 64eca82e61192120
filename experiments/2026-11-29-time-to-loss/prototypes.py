"""What the zoo does not have: value embeddings for GPT.

model._target_=prototypes.ValueGPT trust=[prototypes], with this folder in PYTHONPATH.
B batch, T time, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.gpt import GPT
from zoo.language_model import Cache
from zoo.layers.attention import CausalSelfAttention, KeyValues, attend
from zoo.layers.feed_forward import Activation
from zoo.layers.norms import Norm
from zoo.layers.rotary import rotate
from zoo.layers.transformer import Block


class ValueGPT(GPT):
    """gpt_modern in which each layer has an embedding of the token that is added to its values
    (modded-nanogpt's value embeddings, Jordan et al. 2024). They begin at zero."""

    def __init__(
        self,
        vocab_size: int,
        block_size: int,
        n_layer: int,
        n_head: int,
        n_embd: int,
        bias: bool,
        tie_weights: bool,
        norm: Norm,
        activation: Activation,
        rotary_theta: float,
        qk_norm: bool,
        logit_cap: float,
    ) -> None:
        super().__init__(
            vocab_size, block_size, n_layer, n_head, n_embd, bias=bias, tie_weights=tie_weights,
            norm=norm, activation=activation, rotary_theta=rotary_theta, qk_norm=qk_norm,
            logit_cap=logit_cap,
        )  # fmt: skip
        self.values = nn.ModuleList(nn.Embedding(vocab_size, n_embd) for _ in self.blocks)
        for table in self.values:
            nn.init.zeros_(table.weight)

    def initialize(self, scheme: str = "default", zero_residual: bool = False) -> ValueGPT:
        super().initialize(scheme, zero_residual)
        for table in getattr(self, "values", ()):
            nn.init.zeros_(table.weight)
        return self

    def features(
        self,
        ids_BT: Tensor,
        cache: Cache | None = None,
        losses: dict[str, Tensor] | None = None,
    ) -> Tensor:
        past = self.advance(ids_BT, cache)
        x_BTC = self.token_embedding(ids_BT)
        for layer, (block, table) in enumerate(zip(self.blocks, self.values, strict=True)):
            assert isinstance(block, Block)
            known = KeyValues.of(cache, layer, past)
            normed_BTC = block.attention_norm(x_BTC)
            x_BTC = x_BTC + _attention(block.attention, normed_BTC, known, table(ids_BT))
            x_BTC = x_BTC + block.feed_forward(block.feed_forward_norm(x_BTC))
        return self.norm(x_BTC)


def _attention(
    attention: CausalSelfAttention, x_BTC: Tensor, past: KeyValues | None, added_BTC: Tensor
) -> Tensor:
    """CausalSelfAttention.forward with something added to the values."""
    heads = attention.qkv(x_BTC).unflatten(-1, (-1, attention.n_channels)).transpose(1, 2)
    q, k, v = heads.split(attention.heads, dim=1)
    q, k = attention.q_norm(q), attention.k_norm(k)
    v = v + added_BTC.to(v.dtype).unflatten(-1, (-1, attention.n_channels)).transpose(1, 2)
    assert attention.rotary_theta is not None
    start = past.pos if past is not None else 0
    positions_T = torch.arange(start, start + x_BTC.shape[1], device=x_BTC.device)
    q, k = (rotate(part, positions_T, attention.rotary_theta) for part in (q, k))
    if past is not None:
        k, v = past.extend(k, v)
    return attention.projection(attend(q, k, v).transpose(1, 2).flatten(-2))
