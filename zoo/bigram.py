"""The bigram: the next token's logits are a row of one table.

Shannon, "A Mathematical Theory of Communication" (1948), section 3; as a trained table: Karpathy's
makemore and nanoGPT lectures. The floor that every other architecture has to beat.
"""

from __future__ import annotations

from torch import Tensor, nn

from zoo.language_model import Cache, LanguageModel


class Bigram(LanguageModel):
    """V·V parameters; sees one token."""

    block_size = None
    receptive_field = 1

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.logits_table = nn.Embedding(vocab_size, vocab_size)
        self.head = nn.Identity()
        # Small, so that the first loss is ln V: a standard normal table starts half a nat above.
        nn.init.normal_(self.logits_table.weight, std=0.02)

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        self.advance(ids_BT, cache)
        return self.logits_table(ids_BT)
