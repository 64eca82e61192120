"""Documents in parts that are read one after the other, again and again, as long as a model trains:
files."""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from harness.common.errors import RunFailure
from harness.common.outside import open_regular
from harness.data.sources import KEY, RECORDS, TextReader, find_files, format_of
from zoo_tokenizers import Tokenizer

ORDER = 1 << 193  # the counter of Philox, far from those of the other draws of a seed
Ids = NDArray[np.integer]


@dataclass(frozen=True)
class Document:
    """One of a shard. replaced: how many bytes of the shard were, so far."""

    text: str
    replaced: int = 0

    @property
    def is_empty(self) -> bool:
        return not self.text

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.text.encode()).digest()

    def encoded(self, tokenizer: Tokenizer) -> tuple[Ids, int]:
        """Its ids, and how many characters the tokenizer lacks. Raises TokenizerError."""
        ids, unknown = tokenizer.encode_known(self.text)
        return ids, unknown.total()


class AnyDocument(Protocol):
    """As `Document`, with or without its text."""

    @property
    def is_empty(self) -> bool: ...
    @property
    def digest(self) -> bytes: ...
    @property
    def replaced(self) -> int: ...
    def encoded(self, tokenizer: Tokenizer) -> tuple[Ids, int]: ...


class Shards(ABC):
    """Parts of a source that are read in any order, each from its beginning. names: of each, for
    messages. lanes: how many are read at the same time, no more than there are. buffer: rows of a
    lane that are shuffled among each other. bytes: of all; None: not known. sha256: of what they
    are, as far as that is known without reading them."""

    lanes: int
    buffer: int

    @property
    @abstractmethod
    def names(self) -> Sequence[str]: ...

    @property
    @abstractmethod
    def bytes(self) -> int | None: ...

    @property
    @abstractmethod
    def sha256(self) -> str: ...

    @abstractmethod
    def documents(self, which: int) -> Iterator[AnyDocument]:
        """Those of a shard. Raises UsageError or RunFailure for what can't be read, or is no longer
        what it was."""

    @abstractmethod
    def notes(self) -> list[str]:
        """What a reader of the scores must know about them, one sentence each."""

    def require(self, tokenizer: Tokenizer) -> None:  # noqa: B027 - most have no tokenizer
        """Raises UsageError if they are encoded already, by another one."""

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def texts(self) -> Iterator[str]:
        """Of the first documents, from the first shard on."""

    def numbered(self, seed: int, number: int) -> int:
        """Which one it is in an endless row of them: all in an order of a pass, then all in that
        of the next."""
        turn, at = divmod(number, len(self))
        return _order(seed, turn, len(self))[at]


class TextShards(Shards):
    """Of documents whose text is at hand."""

    @abstractmethod
    def documents(self, which: int) -> Iterator[Document]: ...

    def texts(self) -> Iterator[str]:
        for which in range(len(self)):
            for document in self.documents(which):
                yield document.text


@dataclass(frozen=True)
class FileShards(TextShards):
    """Files in their order, with their sizes in bytes. passed_over: hidden and linked ones beside
    them, unread. errors, field: as of `TextReader`. divider: in a file without records, the text
    between two documents; None: line breaks."""

    files: Sequence[Path]
    sizes: Sequence[int]
    passed_over: Sequence[Path]
    errors: str
    field: str
    divider: str | None
    lanes: int
    buffer: int

    @classmethod
    def find(
        cls,
        path: str | list[str],
        errors: str,
        field: str,
        divider: str | None,
        lanes: int,
        buffer: int,
    ) -> FileShards:
        """Those that a path names (`find_files`). Raises UsageError if there are none, or one can't
        be read."""
        found = find_files(path)
        sizes = []
        for file in found.files:
            format_of(file)
            with open_regular(file, KEY) as opened:
                sizes.append(os.fstat(opened.fileno()).st_size)
        lanes = min(lanes, len(sizes))
        passed_over = found.passed_over
        return cls(found.files, sizes, passed_over, errors, field, divider, lanes, buffer)

    @property
    def names(self) -> Sequence[str]:
        return [str(path) for path in self.files]

    def __len__(self) -> int:
        return len(self.files)

    @property
    def bytes(self) -> int:
        return sum(self.sizes)

    @cached_property
    def sha256(self) -> str:
        """Of their names, without the folders, and sizes: nobody reads them all to begin."""
        names = [path.name for path in self.files]
        return hashlib.sha256(json.dumps([names, list(self.sizes)]).encode()).hexdigest()

    def notes(self) -> list[str]:
        notes = [
            f"training reads {len(self):,} files of {self.bytes:,} bytes as it goes; what is "
            "split, and what a tokenizer learns from, are their first data.first_bytes alone"
        ]
        if self.passed_over:
            notes.append(f"{len(self.passed_over):,} hidden and linked places are not read")
        return notes

    def documents(self, which: int) -> Iterator[Document]:
        """Raises UsageError as `TextReader.texts`, and RunFailure if its size has changed."""
        path, reader = self.files[which], TextReader(self.errors, self.field)
        has_records = format_of(path)[1] in RECORDS
        with open_regular(path, KEY) as file:
            if (size := os.fstat(file.fileno()).st_size) != self.sizes[which]:
                raise RunFailure(
                    f"{path} has changed: it has {size:,} bytes, and had {self.sizes[which]:,}"
                )
            for text in reader.texts(path, file):
                for document in ["".join(text)] if has_records else divided(text, self.divider):
                    yield Document(document, reader.replaced)


def divided(pieces: Iterable[str], divider: str | None) -> Iterator[str]:
    """The documents of a text that comes in pieces. The line break at its end begins none. In time
    proportional to the text, also where a document is all of it."""
    end = divider or "\n"
    before, edge = list[str](), ""  # of a document: what is certain, and where a divider may begin
    for piece in pieces:
        *whole, rest = (edge + piece).split(end)
        if whole:
            whole[0] = "".join([*before, whole[0]])
            before = []
            yield from whole if divider else map(_without_return, whole)
        cut = max(0, len(rest) - len(end) + 1)
        before.append(rest[:cut])
        edge = rest[cut:]
    if last := "".join([*before, edge]):
        yield last if divider else _without_return(last)


def _without_return(line: str) -> str:
    return line.removesuffix("\r")


@lru_cache(maxsize=2)
def _order(seed: int, turn: int, count: int) -> list[int]:
    philox = np.random.Philox(key=np.array([seed, turn], np.uint64), counter=ORDER)
    order: list[int] = np.argsort(philox.random_raw(count), kind="stable").tolist()
    return order
