"""test_nats.json: the nats of each block of the test text. By them two runs can be compared on the
same bytes, whatever their tokenizers."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FILE = "test_nats.json"
SMALLEST, MOST = 256, 4096  # bytes of a block; blocks of a text


@dataclass(frozen=True)
class Blocks:
    """The nats that a model paid for each block of `block_bytes` bytes of a text.

    corpus: SHA-256 of the whole text, of which these are `bytes` bytes from `start` on. The last
    block may be shorter. The first token is context and costs nothing.
    """

    corpus: str
    start: int
    bytes: int
    block_bytes: int
    nats: tuple[float, ...]

    def __post_init__(self) -> None:
        """Raises ValueError for blocks that no run writes."""
        counts = (self.start, self.bytes, self.block_bytes)
        if not all(type(count) is int and 0 <= count < 2**62 for count in counts):
            raise ValueError("start, bytes or block_bytes is no count")
        most = sys.float_info.max  # math.isfinite raises for an integer beyond it
        if not all(type(nats) in (int, float) and abs(nats) <= most for nats in self.nats):
            raise ValueError("nats are not all finite numbers")
        if not isinstance(self.corpus, str):
            raise ValueError("corpus is no digest")
        if not self.bytes or self.block_bytes != block_size(self.bytes):
            raise ValueError(f"a text of {self.bytes} bytes has no blocks of {self.block_bytes}")
        if len(self.nats) != math.ceil(self.bytes / self.block_bytes):
            raise ValueError(f"{len(self.nats)} blocks do not cover {self.bytes} bytes")

    @property
    def text(self) -> tuple[str, int, int]:
        """Which bytes these are: blocks of equal `text` can be compared one by one."""
        return self.corpus, self.start, self.bytes

    @property
    def sizes(self) -> NDArray[np.int64]:
        """The bytes of each block."""
        return np.diff(borders(self.bytes))


def block_size(text_bytes: int) -> int:
    """256 bytes, doubled until no more than 4096 blocks cover the text: a function of the text
    alone, so that all runs on it agree."""
    size = SMALLEST
    while text_bytes > MOST * size:
        size *= 2
    return size


def borders(text_bytes: int) -> NDArray[np.int64]:
    """Where blocks begin, and where the last one ends."""
    return np.append(np.arange(0, text_bytes, block_size(text_bytes)), text_bytes)


def per_block(nats: NDArray[np.floating], sizes: NDArray[np.integer]) -> NDArray[np.float64]:
    """The nats of each block, from those of each token and how many bytes it stands for.

    A token across a border is shared out in proportion to its bytes on each side, so that every
    block holds exactly its bytes, and the blocks add up to the sum of all nats.
    """
    ends = np.concatenate(([0], np.cumsum(sizes)))
    spent = np.concatenate(([0.0], np.cumsum(nats, dtype=np.float64)))
    at_borders = np.interp(borders(int(ends[-1])), ends, spent)
    at_borders[0], at_borders[-1] = 0, spent[-1]  # where tokens of no bytes lie, too
    return np.diff(at_borders)


def parse(document: dict[str, Any]) -> Blocks:
    """What `write_test_blocks` wrote. Raises ValueError for anything else."""
    try:
        return Blocks(**document | {"nats": tuple(document["nats"])})
    except (TypeError, KeyError) as error:
        raise ValueError(f"not the blocks of a test score ({error})") from None
