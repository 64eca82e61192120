"""Input embeddings of n-grams, beside those of single tokens, for any architecture (Huang et al.
2025, "Over-Tokenized Transformer", arXiv 2501.16975, section 3.2).

B batch, T time, S time past and present, C channels.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn

from zoo.layers.checks import require_positive

ROWS = 8191  # a prime
LAST = "ngrams.last"  # of the cache: the last ids, (B, order - 1)


class Ngrams(nn.Module):
    """The sum of the embeddings of the last n tokens, for n from 2 to `order`.

    rows: of each table. An n-gram's row is its number in base vocab_size + 1, modulo `rows`: each
    has its own if there are as many rows, else some share one. ValueError for rows by which the
    oldest tokens would not count: a prime never is such a number, unless it divides the base.
    Tokens before the text are one more id. All begin at zero.
    """

    def __init__(self, vocab_size: int, n_embd: int, order: int, rows: int) -> None:
        super().__init__()
        require_positive(ngram_rows=rows)
        if order < 2:
            raise ValueError(f"ngrams={order} must be at least 2")
        base = vocab_size + 1
        if rows < base**order and (factor := math.gcd(base, rows)) > 1:
            raise ValueError(
                f"ngram_rows={rows} and {base} (the vocabulary's {vocab_size} ids and one more) "
                f"are multiples of {factor}: of {order} tokens the oldest would hardly count; take "
                "a prime, such as 16381"
            )
        self.before_text = vocab_size
        self.digits = [pow(vocab_size + 1, back, rows) for back in range(order)]
        self.rows = rows
        self.tables = nn.ModuleList(nn.Embedding(rows, n_embd) for _ in range(order - 1))
        self.set_to_zero()

    def set_to_zero(self) -> None:
        for table in self.tables:
            assert isinstance(table, nn.Embedding)
            nn.init.zeros_(table.weight)

    def forward(self, ids_BT: Tensor, cache: dict[str, Tensor] | None) -> Tensor:
        """(B, T, C). cache: a model's tensors, which are moved on; without LAST before a text."""
        before, time = len(self.tables), ids_BT.shape[1]
        last = None if cache is None else cache.get(LAST)
        if last is None:
            last = ids_BT.new_full((len(ids_BT), before), self.before_text)
        ids_BS = torch.cat([last, ids_BT], dim=1)
        if cache is not None:
            cache[LAST] = ids_BS[:, time:]
        numbers_BT, found = ids_BT, []
        for back, table in enumerate(self.tables, 1):
            older_BT = ids_BS[:, before - back : before - back + time]
            numbers_BT = numbers_BT + older_BT * self.digits[back]
            found.append(table(numbers_BT % self.rows))
        return functools.reduce(torch.add, found)
