"""The bigram: the next token's logits are a row of one table.

Shannon, "A Mathematical Theory of Communication" (1948), section 3; as a trained table: Karpathy's
makemore and nanoGPT lectures; factored: the log-bilinear model of Mnih & Hinton 2007 (section 4)
with a context of one token. Counted instead of trained: zoo.ngram, of order 2.
"""

from __future__ import annotations

from torch import Tensor, nn

from zoo.language_model import Cache, LanguageModel
from zoo.layers.checks import require_positive


class Bigram(LanguageModel):
    """V·V parameters; sees one token.

    n_embd: if given, the table is the product of two of width n_embd, V·n_embd parameters each: for
    vocabularies whose table of all pairs no memory holds.
    """

    block_size = None
    receptive_field = 1
    fixed_step = True

    def __init__(self, vocab_size: int, n_embd: int | None = None) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        # Logits begin small, so that the first loss is ln V: a standard normal table starts half a
        # nat above.
        if n_embd is None:
            self.table = nn.Embedding(vocab_size, vocab_size)
            self.head: nn.Module = nn.Identity()
            nn.init.normal_(self.table.weight, std=0.02)
        else:
            require_positive(n_embd=n_embd)
            self.table = nn.Embedding(vocab_size, n_embd)
            self.head = nn.Linear(n_embd, vocab_size, bias=False)
            nn.init.normal_(self.head.weight, std=0.02 / n_embd**0.5)

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        self.advance(ids_BT, cache)
        return self.table(ids_BT)
