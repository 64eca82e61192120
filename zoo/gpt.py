"""GPT-2: a pre-norm transformer with learned positions and a tied head.

Radford et al., "Language Models are Unsupervised Multitask Learners" (2019), section 2.3.
B batch, T time, C channels, V vocabulary.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from zoo.language_model import Cache, LanguageModel
from zoo.layers.attention import KeyValues
from zoo.layers.transformer import Block


class GPT(LanguageModel):
    """n_layer blocks of width n_embd over at most block_size tokens.

    dropout is applied where GPT-2 applies it: after the embeddings, on the attention weights and
    after each projection into the residual stream. bias: in the linear maps and layer norms.
    """

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
    ) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.block_size = block_size
        self.receptive_field = block_size
        self.n_head = n_head
        self.token_embedding = nn.Embedding(vocab_size, n_embd)
        self.position_embedding = nn.Embedding(block_size, n_embd)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(n_embd, n_head, dropout, bias) for _ in range(n_layer))
        self.norm = nn.LayerNorm(n_embd, bias=bias)
        self.head = nn.Linear(n_embd, vocab_size, bias=False)
        self._initialize()
        if tie_weights:
            self.head.weight = self.token_embedding.weight

    def _initialize(self) -> None:
        """GPT-2's: normal with 0.02, and projections into the residual stream scaled by
        1/sqrt(2·n_layer), because that many of them add up along it."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif name.endswith("projection.weight"):
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * len(self.blocks)))
            elif parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        past = self.advance(ids_BT, cache)
        positions_T = torch.arange(past, past + ids_BT.shape[1], device=ids_BT.device)
        x_BTC = self.token_embedding(ids_BT) + self.position_embedding(positions_T)
        x_BTC = self.dropout(x_BTC)
        for layer, block in enumerate(self.blocks):
            x_BTC = block(x_BTC, KeyValues.of(cache, layer, past))
        return self.norm(x_BTC)

    def init_cache(self, batch_size: int) -> Cache:
        n_embd = self.token_embedding.embedding_dim
        like = self.token_embedding.weight
        shape = (
            batch_size,
            self.n_head,
            self.position_embedding.num_embeddings,
            n_embd // self.n_head,
        )
        return Cache(KeyValues.empty(len(self.blocks), shape, like))
