"""Documents that are read, encoded and cut into rows, without an end.

N rows of a block, T + 1 tokens of a row: inputs and the last target.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.common.errors import RunFailure, UsageError
from harness.data.shards import Shards
from zoo_tokenizers import Tokenizer, TokenizerError, smallest_unsigned

SHUFFLE = 1 << 194  # the counter of Philox, far from those of the other draws of a seed
COUNTS = ("documents", "held_out", "empty", "unknown", "replaced")
FRUITLESS = 100  # shards without a document to train on, beyond the number of all
Rows = NDArray[np.unsignedinteger]


@dataclass(frozen=True)
class Position:
    """A token of a lane. shard: in the endless row of all of them. document: of the shard. token:
    of the document, its marker first. sha256: of the shard's documents up to this one; "" if none
    is read yet.

    The rest counts what came before: documents that were encoded, held_out ones, which were passed
    over, and empty ones; characters unknown to the tokenizer, which were left out; and bytes that
    were replaced as far as the shard was read then, a little further than this.
    """

    shard: int
    document: int = 0
    token: int = 0
    sha256: str = ""
    documents: int = 0
    held_out: int = 0
    empty: int = 0
    unknown: int = 0
    replaced: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError for what is no position."""
        for name, value in asdict(self).items():
            if name != "sha256" and not 0 <= value < 2**63:
                raise ValueError(f"{name} is {value}")


@dataclass(frozen=True)
class Lane:
    """One of `lanes` parts of the shards: number, number + lanes, … of their endless row.

    rows: of a block. length: T + 1. stride: tokens from the beginning of one row to that of the
    next. held_out: digests of the documents that are passed over, wherever they lie.
    """

    shards: Shards
    tokenizer: Tokenizer
    seed: int
    number: int
    lanes: int
    rows: int
    length: int
    stride: int
    held_out: frozenset[bytes]

    @property
    def start(self) -> Position:
        return Position(self.number)

    def blocks(self, start: Position, number: int = 0) -> Iterator[tuple[dict[str, Any], Rows]]:
        """Blocks of rows, (N, T + 1), from that of this number on, which begins at `start`, each
        with where it begins. Rows lie side by side in the text; in their block they are shuffled.

        Raises UsageError for what can't be read, and RunFailure if the shard of `start` is another
        one by now, or there is nothing to train on.
        """
        documents = self._documents(start)
        pending = deque[tuple[Position, Rows]]()
        # Tokens: used up of the first pending document, and pending behind them.
        skip, left = start.token, -start.token
        wanted, used = (self.rows - 1) * self.stride + self.length, self.rows * self.stride
        while True:
            while left < wanted:
                pending.append(next(documents))
                left += len(pending[-1][1])
                if skip >= len(pending[0][1]):
                    raise self._changed(self.shards.numbered(self.seed, start.shard))
            joined = np.concatenate([ids for _, ids in pending])[skip : skip + wanted]
            rows = np.lib.stride_tricks.sliding_window_view(joined, self.length)[:: self.stride]
            yield asdict(replace(pending[0][0], token=skip)), rows[self._order(number)]
            skip, left, number = skip + used, left - used, number + 1
            while skip >= len(pending[0][1]):
                skip -= len(pending.popleft()[1])

    def _order(self, block: int) -> NDArray[np.int64]:
        """(N,): of a block's rows."""
        key = np.array([self.seed, self.number], np.uint64)
        philox = np.random.Philox(key=key, counter=SHUFFLE + (block << 64))
        return np.argsort(philox.random_raw(self.rows), kind="stable")

    def _documents(self, start: Position) -> Iterator[tuple[Position, Rows]]:
        """Each with its marker before it, from that of `start` on."""
        kind = smallest_unsigned(self.tokenizer.vocab_size)
        marker = np.array([self.tokenizer.marker], kind)
        counts = {name: value for name, value in asdict(start).items() if name in COUNTS}
        shard, fruitless, before = start.shard, 0, start.replaced
        while fruitless < len(self.shards) + FRUITLESS:
            which, fruitless = self.shards.numbered(self.seed, shard), fruitless + 1
            chain, number = b"", -1
            for number, document in enumerate(self.shards.documents(which)):
                digest, replaced = document.digest, document.replaced
                chain = sha256(chain + digest).digest()
                if shard == start.shard and number < start.document:
                    continue
                if (shard, number) == (start.shard, start.document) and start.sha256:
                    if start.sha256 != chain.hex():
                        raise self._changed(which)
                    before -= replaced
                counts["replaced"] = before + replaced
                if document.is_empty or digest in self.held_out:
                    counts["empty" if document.is_empty else "held_out"] += 1
                    continue
                try:
                    ids, unknown = document.encoded(self.tokenizer)
                except TokenizerError as error:
                    name = self.shards.names[which]
                    raise UsageError(f"{name} document {number + 1}: {error}") from error
                position = Position(shard, number, 0, chain.hex(), **counts)
                yield position, np.concatenate([marker, ids.astype(kind, copy=False)])
                counts["documents"] += 1
                counts["unknown"] += unknown
                fruitless = 0
            if shard == start.shard and number < start.document:
                raise self._changed(which)
            shard, before = shard + self.lanes, counts["replaced"]
        raise RunFailure(
            f"data: {fruitless:,} shards in a row hold no document to train on: all of theirs are "
            "empty or held out"
        )

    def _changed(self, which: int) -> RunFailure:
        return RunFailure(
            f"{self.shards.names[which]} has changed since the checkpoint: its documents are other "
            "ones"
        )
