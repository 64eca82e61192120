"""A stack of blocks whose past is of fixed size.

B batch, T time, C channels, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

from torch import Tensor, nn

from zoo.language_model import Cache, LanguageModel
from zoo.layers.dropout import Dropout


class StackedBlock(nn.Module, ABC):
    """A block of a Stack."""

    @abstractmethod
    def forward(self, x_BTC: Tensor, cache: Cache | None, name: str, past: int) -> Tensor:
        """The residual stream after the block, (B, T, C). Its past of `past` positions lies in the
        cache, under names that begin with `name`."""

    @abstractmethod
    def empty(self, name: str, batch_size: int) -> dict[str, Tensor]:
        """Its part of the cache before the text."""


class Stack(LanguageModel):
    """Embeddings, blocks, a norm and a linear head. dropout: of the embeddings."""

    block_size = None
    receptive_field: int | None = None
    residual = ("projection",)
    takes_ngrams = True

    def __init__(
        self,
        vocab_size: int,
        n_embd: int,
        blocks: Iterable[StackedBlock],
        norm: nn.Module,
        dropout: float,
        tie_weights: bool,
    ) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.token_embedding = nn.Embedding(vocab_size, n_embd)
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm
        self.head = nn.Linear(n_embd, vocab_size, bias=False)
        self.initialize("gpt2")
        if tie_weights:
            self.head.weight = self.token_embedding.weight

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        past = self.advance(ids_BT, cache)
        x_BTC = self.dropout(self.embed(ids_BT, cache))
        for number, block in enumerate(self.blocks):
            x_BTC = block(x_BTC, cache, str(number), past)
        return self.norm(x_BTC)

    def init_cache(self, batch_size: int) -> Cache:
        tensors: dict[str, Tensor] = {}
        for number, block in enumerate(self.blocks):
            assert isinstance(block, StackedBlock)
            tensors |= block.empty(str(number), batch_size)
        return Cache(tensors)
