"""test_nats.json: the nats of each block of the test text. Two runs can be compared on the same
bytes by their blocks, whatever their tokenizers."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.common import contained
from harness.common.files import write_atomically
from harness.runs.damage import DamageError, is_finite, parse_json

FILE = "test_nats.json"
MIN_BLOCK_BYTES, MAX_BLOCKS = 256, 4096


@dataclass(frozen=True)
class Blocks:
    """The nats of a model for each block of `block_bytes` bytes of a text.

    corpus: SHA-256 of the whole text. The blocks cover `bytes` bytes of it from `start` on; the
    last one may be shorter. The first token is context and costs nothing. definition: of the score.
    documents: the bytes of each block where a block is a document, or several whole ones in a row;
    None for one long text.
    """

    corpus: str
    start: int
    bytes: int
    block_bytes: int
    nats: tuple[float, ...]
    definition: int = 1
    documents: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for blocks that no run writes."""
        counts = (self.start, self.bytes, self.block_bytes, self.definition)
        if not all(type(count) is int and 0 <= count < 2**62 for count in counts):
            raise ValueError("start, bytes, block_bytes or definition is not a count")
        if not all(map(is_finite, self.nats)):
            raise ValueError("nats are not all finite numbers")
        if not isinstance(self.corpus, str):
            raise ValueError("corpus is not a digest")
        if self.documents is not None:
            if not all(type(size) is int and 0 < size < 2**62 for size in self.documents):
                raise ValueError("documents are not counts of bytes")
            if sum(self.documents) != self.bytes or len(self.nats) != len(self.documents):
                raise ValueError(f"the documents are not {self.bytes} bytes, with nats for each")
            return
        if not self.bytes or self.block_bytes != block_size(self.bytes):
            raise ValueError(f"a text of {self.bytes} bytes has no blocks of {self.block_bytes}")
        if len(self.nats) != math.ceil(self.bytes / self.block_bytes):
            raise ValueError(f"{len(self.nats)} blocks do not cover {self.bytes} bytes")

    @property
    def text(self) -> tuple[str, int, int]:
        """Identifies the bytes: blocks of equal `text` can be compared one by one."""
        return self.corpus, self.start, self.bytes

    @property
    def sizes(self) -> NDArray[np.int64]:
        """The bytes of each block."""
        if self.documents is not None:
            return np.array(self.documents, np.int64)
        return np.diff(borders(self.bytes))

    def write(self, folder: Path) -> None:
        """Raises RunFailure if it can't be written."""
        plain = asdict(self)
        if self.documents is None:
            del plain["documents"]
        write_atomically(folder / FILE, json.dumps(plain).encode())


def block_size(text_bytes: int) -> int:
    """256 bytes, doubled until at most 4096 blocks cover the text. It depends on the text alone, so
    that all runs on it agree."""
    size = MIN_BLOCK_BYTES
    while text_bytes > MAX_BLOCKS * size:
        size *= 2
    return size


def borders(text_bytes: int) -> NDArray[np.int64]:
    """Where blocks begin, and where the last one ends."""
    return np.append(np.arange(0, text_bytes, block_size(text_bytes)), text_bytes)


def per_block(nats: NDArray[np.floating], sizes: NDArray[np.integer]) -> NDArray[np.float64]:
    """The nats of each block, from the nats of each token and the bytes it stands for.

    A token across a border is divided in proportion to its bytes on each side. So every block holds
    exactly its bytes, and the blocks sum to the nats of all tokens.
    """
    ends = np.concatenate(([0], np.cumsum(sizes)))
    spent = np.concatenate(([0.0], np.cumsum(nats, dtype=np.float64)))
    at_borders = np.interp(borders(int(ends[-1])), ends, spent)
    at_borders[0], at_borders[-1] = 0, spent[-1]  # also with tokens of no bytes there
    return np.diff(at_borders)


def per_group(
    nats_D: NDArray[np.floating], sizes_D: NDArray[np.integer]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The nats and bytes of at most MAX_BLOCKS groups of documents in a row, alike in number."""
    groups = min(MAX_BLOCKS, len(sizes_D))
    begins = np.arange(groups) * len(sizes_D) // groups
    return np.add.reduceat(nats_D, begins), np.add.reduceat(sizes_D, begins)


def read(folder: Path) -> Blocks | None:
    """None if there are none: the tokenizer is lossy, or the run is older than this file. Raises
    DamageError and OSError."""
    try:
        text = contained.read_text(folder / FILE)
    except FileNotFoundError:
        return None
    document = parse_json(text, FILE)
    try:
        if document.get("documents") is not None:
            document["documents"] = tuple(document["documents"])
        return Blocks(**document | {"nats": tuple(document["nats"])})
    except (TypeError, KeyError, ValueError) as error:
        raise DamageError(f"{FILE}: not the blocks of a test score ({error})") from None
