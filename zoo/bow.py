"""The causal bag of words: the average of all embeddings so far.

Karpathy's makemore (2022), model `bow`: one block, like a transformer's with uniform attention.
B batch, T time, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.language_model import Cache, LanguageModel
from zoo.layers.checks import require_positive
from zoo.layers.dropout import Dropout, widened


class BoW(LanguageModel):
    """Averages token and position embeddings over the past, then one hidden layer of n_hidden
    tanh units; both are added to the residual stream.

    dropout: of the hidden units. widen_dropout: widen the layer so that n_hidden units remain on
    average.
    """

    residual = ("projection",)
    takes_ngrams = True
    fixed_step = True

    def __init__(
        self,
        vocab_size: int,
        block_size: int,
        n_embd: int,
        n_hidden: int,
        dropout: float = 0.0,
        widen_dropout: bool = False,
    ) -> None:
        super().__init__()
        require_positive(block_size=block_size, n_embd=n_embd, n_hidden=n_hidden)
        n_hidden = widened(n_hidden, dropout, widen_dropout)
        self.vocab_size = vocab_size
        self.block_size = block_size
        self.receptive_field = block_size
        self.token_embedding = nn.Embedding(vocab_size, n_embd)
        self.position_embedding = nn.Embedding(block_size, n_embd)
        self.expand = nn.Linear(n_embd, n_hidden)
        self.dropout = Dropout(dropout)
        self.projection = nn.Linear(n_hidden, n_embd)
        self.head = nn.Linear(n_embd, vocab_size)
        # Small, so that the first loss is ln V.
        nn.init.normal_(self.head.weight, std=0.1 / n_embd**0.5)
        nn.init.zeros_(self.head.bias)

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        past = self.advance(ids_BT, cache)
        positions_T = self.positions_of(ids_BT, cache, past)
        x_BTC = self.embed(ids_BT, cache) + self.position_embedding(positions_T)
        sum_BTC = x_BTC.cumsum(dim=1)
        if cache is not None:
            sum_BTC = sum_BTC + cache.tensors["sum"][:, None]
            cache.tensors["sum"] = sum_BTC[:, -1]
        x_BTC = x_BTC + sum_BTC / (positions_T[:, None] + 1)
        return x_BTC + self.projection(self.dropout(torch.tanh(self.expand(x_BTC))))

    def init_cache(self, batch_size: int) -> Cache:
        """The sum of all embeddings so far, (B, C)."""
        width = self.token_embedding.embedding_dim
        return Cache({"sum": self.token_embedding.weight.new_zeros(batch_size, width)})
