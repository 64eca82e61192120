"""GPT: a causal transformer. The defaults are GPT-2; options give its relatives.

Radford et al., "Language Models are Unsupervised Multitask Learners" (2019, GPT-2), section 2.3.
Options: Radford et al. 2018 (GPT-1), Brown et al. 2020 (GPT-3, arXiv 2005.14165, section 2.1),
Touvron et al. 2023 (Llama 2, arXiv 2307.09288, section 2.2), Jiang et al. 2023 (Mistral, arXiv
2310.06825, section 2); conf/model/ has a file for each. B batch, T time, C channels, V vocabulary.
"""

from __future__ import annotations

import math
from typing import get_args

import torch
from torch import Tensor, nn

from zoo.language_model import Cache, LanguageModel
from zoo.layers.attention import KeyValues
from zoo.layers.checks import require_positive
from zoo.layers.dropout import Dropout
from zoo.layers.feed_forward import Activation
from zoo.layers.norms import Norm, make_norm
from zoo.layers.positions import Positions, sinusoids
from zoo.layers.transformer import Block

THETA = 10000.0  # the base of rotary positions


class GPT(LanguageModel):
    """n_layer blocks of width n_embd over at most block_size tokens.

    dropout: as in GPT-2, after the embeddings, on the attention weights and after each projection
    into the residual stream. attention_dropout: on the attention weights; null: dropout.
    bias: in the linear maps and layer norms. tie_weights: the head is the embedding's transpose.
    bands: how many positions each layer sees, repeated over the layers; null: all. [null, 128]
    alternates dense and banded layers, as in GPT-3; [128] is Mistral's sliding window.
    positions: learned (GPT-2); sinusoidal, with the embeddings times √n_embd (Vaswani et al. 2017,
    sections 3.4 and 3.5); rope (rotary); alibi; or none, where the causal mask alone tells them
    (Haviv et al. 2022, arXiv 2203.16634). null: rope if rotary_theta is given, else learned. All
    but learned ones hold at any block_size. rotary_theta: the base of rotary ones; null: 10000.
    logit_cap: soft cap of the logits to ±logit_cap (Gemma 2, arXiv 2408.00118, section 2).
    stochastic_depth: the drop probability of the last block's parts in training; it grows linearly
    with depth. n_expert: experts of each layer, of which a token goes through n_expert_active
    (zoo/layers/experts.py); null: a feed-forward. balance_weight, router_z_weight: of their
    auxiliary losses, summed over the layers. For the others see Block and CausalSelfAttention.
    """

    block_size: int
    residual = ("projection",)
    takes_ngrams = True

    def __init__(
        self,
        vocab_size: int,
        block_size: int,
        n_layer: int,
        n_head: int,
        n_embd: int,
        dropout: float = 0.0,
        bias: bool = True,
        tie_weights: bool = True,
        attention_dropout: float | None = None,
        norm: Norm = "layer_norm",
        post_norm: bool = False,
        activation: Activation = "gelu",
        n_inner: int | None = None,
        bands: tuple[int | None, ...] = (None,),
        rotary_theta: float | None = None,
        n_kv_head: int | None = None,
        qk_norm: bool = False,
        logit_cap: float | None = None,
        stochastic_depth: float = 0.0,
        positions: Positions | None = None,
        n_expert: int | None = None,
        n_expert_active: int = 2,
        balance_weight: float = 0.01,
        router_z_weight: float = 0.0,
    ) -> None:
        super().__init__()
        require_positive(block_size=block_size, n_layer=n_layer, n_embd=n_embd, bands=len(bands))
        layer_bands = [bands[layer % len(bands)] for layer in range(n_layer)]
        for name, weight in {"balance": balance_weight, "router_z": router_z_weight}.items():
            if weight < 0:
                raise ValueError(f"{name}_weight={weight:g} must be at least 0")
        self.vocab_size = vocab_size
        self.block_size = block_size
        if n_expert is not None:
            self.auxiliary = {"balance": balance_weight, "router_z": router_z_weight}
        self.fixed_step = n_expert is None
        self.receptive_field = min(
            block_size, 1 + sum(block_size if band is None else band - 1 for band in layer_bands)
        )
        if positions is None:
            positions = "learned" if rotary_theta is None else "rope"
        if positions not in (known := get_args(Positions)):
            raise ValueError(f"positions={positions!r} is not one of {', '.join(known)}")
        rotary_theta = THETA if rotary_theta is None else rotary_theta
        rotary_theta = rotary_theta if positions == "rope" else None
        self.positions = positions
        self.token_embedding = nn.Embedding(vocab_size, n_embd)
        self.position_embedding = (
            nn.Embedding(block_size, n_embd) if positions == "learned" else None
        )
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(
                n_embd, n_head, dropout, bias, attention_dropout=attention_dropout, norm=norm,
                post_norm=post_norm, activation=activation, n_inner=n_inner, band=band,
                rotary_theta=rotary_theta, alibi=positions == "alibi", n_kv_head=n_kv_head,
                qk_norm=qk_norm,
                stochastic_depth=stochastic_depth * layer / n_layer,
                n_expert=n_expert, n_expert_active=n_expert_active,
            )
            for layer, band in enumerate(layer_bands, 1)
        )  # fmt: skip
        self.norm = nn.Identity() if post_norm else make_norm(norm, n_embd, bias)
        head = nn.Linear(n_embd, vocab_size, bias=False)
        self.head = head if logit_cap is None else nn.Sequential(head, SoftCap(logit_cap))
        self.initialize("gpt2")
        if tie_weights:
            head.weight = self.token_embedding.weight

    def features(
        self,
        ids_BT: Tensor,
        cache: Cache | None = None,
        losses: dict[str, Tensor] | None = None,
    ) -> Tensor:
        past = self.advance(ids_BT, cache)
        x_BTC = self.embed(ids_BT, cache)
        positions_T = self.positions_of(ids_BT, cache, past)
        if self.position_embedding is not None:
            x_BTC = x_BTC + self.position_embedding(positions_T)
        elif self.positions == "sinusoidal":
            channels = x_BTC.shape[-1]
            x_BTC = math.sqrt(channels) * x_BTC + sinusoids(positions_T, channels, x_BTC.dtype)
        x_BTC = self.dropout(x_BTC)
        for layer, block in enumerate(self.blocks):
            x_BTC = block(x_BTC, KeyValues.of(cache, layer, past), losses)
        return self.norm(x_BTC)

    def init_cache(self, batch_size: int) -> Cache:
        like = self.token_embedding.weight
        tensors: dict[str, Tensor] = {}
        for layer, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            shape = block.attention.past_shape(batch_size, self.block_size)
            tensors |= KeyValues.buffers(layer, shape, like)
        return Cache(tensors)


class SoftCap(nn.Module):
    """Soft cap: cap·tanh(x / cap)."""

    def __init__(self, cap: float) -> None:
        super().__init__()
        if cap <= 0:
            raise ValueError(f"logit_cap={cap:g} must be above 0")
        self.cap = cap

    def forward(self, x: Tensor) -> Tensor:
        return self.cap * torch.tanh(x / self.cap)
