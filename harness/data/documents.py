"""Corpora that are lists of documents."""

from __future__ import annotations

import hashlib
import itertools
import random
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harness.common import contained
from harness.common.errors import UsageError
from harness.common.outside import open_regular
from harness.data.assets import Assets
from harness.data.corpus import Corpus, Download, Span, Text, called, passed_over_note
from harness.data.sources import (
    KEY,
    RECORDS,
    TextReader,
    find_files,
    format_of,
    read_blocks,
    unpacked,
)
from zoo_tokenizers import WholeTexts

MOST_BYTES = 4 << 30  # of a file of documents


class DocumentText(Text):
    """Documents one after the other in memory, each of at least one byte, with nothing in between.

    ends: (D,), the offset at which each ends. Digests cover them as well as the bytes, and that of
    the whole its `cuts`. empty: the number of empty ones, which were left out. origin: notes of
    where they are from.
    """

    of_documents = True

    def __init__(self, documents: Sequence[bytes], empty: int = 0) -> None:
        super().__init__(b"".join(documents))
        sizes = np.fromiter(map(len, documents), dtype=np.int64, count=len(documents))
        self.ends: NDArray[np.int64] = np.cumsum(sizes)
        self._empty = empty
        self.origin: Sequence[str] = ()

    def cut(self, share: float) -> int:
        """Where a share of the documents ends; their number is rounded down."""
        number = int(round(share * len(self.ends), 6))
        return int(self.ends[number - 1]) if number else 0

    def ends_in(self, start: int, stop: int) -> NDArray[np.int64]:
        """The ends of the documents that begin and end between two offsets."""
        first, last = np.searchsorted(self.ends, (start, stop), side="right")
        return self.ends[first:last]

    def strings(self, start: int, stop: int) -> WholeTexts:
        """The documents, one string each."""
        borders = [start, *self.ends_in(start, stop - 1).tolist(), stop]
        return WholeTexts(
            self.read(*pair).decode("utf-8", "surrogateescape")
            for pair in itertools.pairwise(borders)
            if start < stop
        )

    @contextmanager
    def unchanged(self, span: Span) -> Iterator[Iterable[str]]:
        yield self.strings(span.start, span.stop)  # nobody else has this memory

    def spans(self, parts: Iterable[tuple[int, int]]) -> tuple[Span, list[Span]]:
        whole = self._span(0, self.size)
        if self.cuts is not None:  # else the settings say where train ends
            digest = hashlib.sha256(f"{whole.sha256} {[*self.cuts]}".encode())
            whole = whole._replace(sha256=digest.hexdigest())
        return whole, [self._span(*part) for part in parts]

    def _span(self, start: int, stop: int) -> Span:
        digest = hashlib.sha256((self.ends_in(start, stop) - start).astype("<i8").tobytes())
        digest.update(self.read(start, stop))
        return Span(start, stop, digest.hexdigest())

    def notes(self) -> list[str]:
        notes = [*super().notes(), *self.origin]
        if self._empty:
            notes.append(f"{self._empty:,} empty documents are left out")
        return notes


Rows = Literal["alone", "packed", "across"]


class DocumentCorpus(Corpus):
    """split: the shares of the documents in train, validation and test. shuffle: the seed of their
    order, that of Python's `random.Random(shuffle).shuffle`; None: as they are in the file.

    rows: of training. `alone`, each is a document, or a piece of one, and padding. `packed`, each
    is full of documents in a row, cut at its ends, and no position sees another document than its
    own. `across`, they are packed and seen as one text, the end markers in it.
    """

    of_documents = True

    def __init__(
        self, split: list[float], shuffle: int | None = None, rows: Rows = "alone"
    ) -> None:
        super().__init__(split)
        self.shuffle = shuffle
        self.rows: Rows = rows

    @abstractmethod
    def read(self, assets: Assets) -> DocumentText: ...

    def text_of(self, found: Sequence[bytes]) -> DocumentText:
        """Of documents in the order of their source. Raises UsageError if there are none."""
        documents = [document for document in found if document]
        if not documents:
            raise UsageError("data: there are no documents in it")
        if self.shuffle is not None:
            random.Random(self.shuffle).shuffle(documents)
        return DocumentText(documents, empty=len(found) - len(documents))


class Lines(DocumentCorpus):
    """Each line of files (`find_files`), without its line break, LF or CRLF; or, with a `divider`,
    what lies between two of its occurrences in a file; or of a file of records each, whose text is
    in `field`. What is empty is no document. Bytes of lines that are not UTF-8 are kept."""

    def __init__(
        self,
        path: str | list[str],
        split: list[float],
        shuffle: int | None = None,
        rows: Rows = "alone",
        divider: str | None = None,
        field: str = "text",
    ) -> None:
        super().__init__(split, shuffle, rows)
        if divider == "":
            raise ValueError("divider='' divides nothing: give a text, or null for line breaks")
        self.path, self.divider, self.field = path, divider, field
        self.found = called(path)

    def read(self, assets: Assets) -> DocumentText:
        files, passed_over = find_files(self.path)
        documents = (document for path in files for document in self._in_file(path))
        text = self.text_of(within_limit(documents))
        if passed_over:
            text.origin = [passed_over_note(passed_over)]
        return text

    def _in_file(self, path: Path) -> Iterable[bytes]:
        with open_regular(path, KEY) as file:
            if format_of(path)[1] in RECORDS:
                for text in TextReader("strict", self.field).texts(path, file):
                    yield "".join(text).encode()
                return
            content = b"".join(within_limit(read_blocks(path, unpacked(path, file))))
        yield from lines(content) if self.divider is None else content.split(self.divider.encode())

    def moved_to(self, path: Path) -> Corpus:
        return Lines(str(path), self.split, self.shuffle, self.rows, self.divider, self.field)


def within_limit(pieces: Iterable[bytes]) -> list[bytes]:
    """All of them. Raises UsageError if that is too much to be held in memory."""
    most, found, size = int(MOST_BYTES * contained.factor()), list[bytes](), 0
    for piece in pieces:
        size += len(piece)
        if size > most:
            raise UsageError(
                f"data: there are more than {most:,} bytes, and documents are held in memory: take "
                "data=stream; $ZOO_LIMITS=10 allows ten times as many"
            )
        found.append(piece)
    return found


class DownloadedLines(DocumentCorpus):
    """The lines of a file with a known digest."""

    def __init__(
        self,
        file: str,
        url: str,
        sha256: str,
        split: list[float],
        shuffle: int | None = None,
        rows: Rows = "alone",
    ) -> None:
        super().__init__(split, shuffle, rows)
        self._download = Download(file, url, sha256, split)

    def read(self, assets: Assets) -> DocumentText:
        text = self._download.read(assets)
        return self.text_of(lines(text.read(0, text.size)))

    def moved_to(self, path: Path) -> Corpus:
        return Lines(str(path), self.split, self.shuffle, self.rows)


def lines(content: bytes) -> list[bytes]:
    """Without their line breaks, LF or CRLF; the line break at the end of a text begins no line."""
    found = content.removesuffix(b"\n").split(b"\n")
    return [line.removesuffix(b"\r") for line in found]
