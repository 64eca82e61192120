"""What the zoo does not have: n-gram input embeddings for any model, and value embeddings for GPT.

model._target_=prototypes.NgramGPT trust=[prototypes], with this folder in PYTHONPATH.
B batch, T time, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.gpt import GPT
from zoo.language_model import Cache, LanguageModel
from zoo.layers.attention import CausalSelfAttention, KeyValues, attend
from zoo.layers.feed_forward import Activation
from zoo.layers.norms import Norm
from zoo.layers.rotary import rotate
from zoo.layers.transformer import Block
from zoo.recurrent import LSTM
from zoo.wavenet import WaveNet

PRIMES = (1, 36313, 27191, 51647)  # of the hash; where all n-grams have a row each it is exact
IDS = "ngram.ids"


class Ngrams(LanguageModel):
    """Adds an embedding of the last n tokens, for n from 2 to `order`, to that of the token (Huang
    et al. 2025, "Over-Tokenized Transformer", arXiv 2501.16975, section 3.2).

    rows: of each table; n-grams share one by a hash if there are more of them. They begin at zero.
    """

    token_embedding: nn.Embedding

    def add_ngrams(self, order: int, rows: int) -> None:
        self.order, self.rows = order, rows
        width = self.token_embedding.embedding_dim
        self.ngrams = nn.ModuleList(nn.Embedding(rows, width) for _ in range(order - 1))
        for table in self.ngrams:
            nn.init.zeros_(table.weight)
        if self.receptive_field is not None and self.block_size is None:
            self.receptive_field += order - 1

    def initialize(self, scheme: str = "default", zero_residual: bool = False) -> Ngrams:
        super().initialize(scheme, zero_residual)
        for table in getattr(self, "ngrams", ()):
            nn.init.zeros_(table.weight)
        return self

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        before = self.order - 1
        none_BN = ids_BT.new_full((len(ids_BT), before), self.vocab_size)
        last_BN = none_BN if cache is None else cache.tensors[IDS]
        ids_BS = torch.cat([last_BN, ids_BT], dim=1)
        if cache is not None:
            cache.tensors[IDS] = ids_BS[:, ids_BT.shape[1] :].clone()
        time = ids_BT.shape[1]
        added_BTC: Tensor | int = 0
        hashed_BT = ids_BT
        for back, table in enumerate(self.ngrams, 1):
            older_BT = ids_BS[:, before - back : before - back + time]
            scale = (self.vocab_size + 1) if self.order == 2 else PRIMES[back]
            hashed_BT = hashed_BT + older_BT * scale
            added_BTC = added_BTC + table(hashed_BT % self.rows)
        hook = self.token_embedding.register_forward_hook(lambda *seen: seen[2] + added_BTC)
        try:
            return super().features(ids_BT, cache)
        finally:
            hook.remove()

    def init_cache(self, batch_size: int) -> Cache:
        cache = super().init_cache(batch_size)
        device = self.token_embedding.weight.device
        cache.tensors[IDS] = torch.full(
            (batch_size, self.order - 1), self.vocab_size, dtype=torch.int64, device=device
        )
        return cache


class NgramGPT(Ngrams, GPT):
    """gpt_modern with n-gram embeddings."""

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
        order: int = 2,
        rows: int = 8192,
    ) -> None:
        super().__init__(
            vocab_size, block_size, n_layer, n_head, n_embd, bias=bias, tie_weights=tie_weights,
            norm=norm, activation=activation, rotary_theta=rotary_theta, qk_norm=qk_norm,
            logit_cap=logit_cap,
        )  # fmt: skip
        self.add_ngrams(order, rows)


class NgramLSTM(Ngrams, LSTM):
    """LSTM with n-gram embeddings."""

    def __init__(
        self,
        vocab_size: int,
        n_layer: int,
        n_embd: int,
        n_hidden: int,
        order: int = 2,
        rows: int = 8192,
    ) -> None:
        super().__init__(vocab_size, n_layer, n_embd, n_hidden)
        self.add_ngrams(order, rows)


class NgramWaveNet(Ngrams, WaveNet):
    """WaveNet with n-gram embeddings."""

    def __init__(
        self,
        vocab_size: int,
        n_embd: int,
        channels_residual: int,
        channels_gate: int,
        channels_skip: int,
        kernel_sizes: list[int],
        dilations: list[int],
        n_stack: int,
        order: int = 2,
        rows: int = 8192,
    ) -> None:
        super().__init__(
            vocab_size, n_embd, channels_residual, channels_gate, channels_skip, kernel_sizes,
            dilations, n_stack,
        )  # fmt: skip
        self.add_ngrams(order, rows)


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
    q_BTC, k_BTC, v_BTC = attention.qkv(x_BTC).split(attention.widths, dim=-1)
    q, k, v = (
        part.unflatten(-1, (-1, attention.n_channels)).transpose(1, 2)
        for part in (q_BTC, k_BTC, v_BTC + added_BTC.to(v_BTC.dtype))
    )
    q, k = attention.q_norm(q), attention.k_norm(k)
    assert attention.rotary_theta is not None
    start = past.pos if past is not None else 0
    positions_T = torch.arange(start, start + x_BTC.shape[1], device=x_BTC.device)
    q, k = (rotate(part, positions_T, attention.rotary_theta) for part in (q, k))
    if past is not None:
        k, v = past.extend(k, v)
    return attention.projection(attend(q, k, v).transpose(1, 2).flatten(-2))
