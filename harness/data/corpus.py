"""Corpora, and their split by bytes before tokenization."""

from __future__ import annotations

import codecs
import functools
import hashlib
import itertools
import math
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.common.errors import RunFailure, UsageError
from harness.common.outside import open_regular
from harness.common.paths import expand
from harness.data.assets import Assets
from harness.data.joined import Counts, join, require_text
from harness.data.shards import Shards
from harness.data.sources import KEY, PACKED, find_files, format_of, looks_like

BLOCK = 1 << 20  # bytes read at a time
SHOWN = 3  # names in a note


class Span(NamedTuple):
    """Bytes of a text, from start to stop, and their SHA-256 when they were first read. texts: of a
    mix, those of each corpus; the digest is then of their digests."""

    start: int
    stop: int
    sha256: str
    texts: tuple[Span, ...] = ()


class Task(Protocol):
    """Draws the rows of training (`harness.data.skills`). chance: the accuracy of the best constant
    answer."""

    chance: float

    def batch(self, seed: int, step: int, rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Inputs and targets of a step, (rows, T) each."""


class Text:
    """A text in a file or in memory, read in blocks because it may not fit in memory.

    counts: of what it was made from, if it was. of_documents: whether `strings` are whole
    documents. task: whose examples these are, if they are any's. names, digests: of a mix, those
    of its texts. shards: what training reads, of which this is only the beginning; None: this
    itself. cuts: where train and validation end, if the source says it.
    """

    counts: Mapping[str, int] = {}
    names: Sequence[str] = ()
    digests: Sequence[str] = ()
    of_documents = False
    task: Task | None = None
    shards: Shards | None = None
    cuts: Sequence[int] | None = None

    def __init__(self, source: Path | bytes) -> None:
        self._source = source
        self._state = self._stat()
        self.size = self._state[0]

    def read(self, start: int, stop: int) -> bytes:
        """Raises RunFailure if the file can't be read any more."""
        if isinstance(self._source, bytes):
            return self._source[start:stop]
        try:
            with self._source.open("rb") as file:
                file.seek(start)
                return file.read(stop - start)
        except OSError as error:
            raise RunFailure(f"{self._source} can't be read: {error.strerror}") from error

    def blocks(self, start: int, stop: int) -> Iterator[bytes]:
        for at in range(start, stop, BLOCK):
            yield self.read(at, min(at + BLOCK, stop))

    def strings(self, start: int, stop: int) -> Iterable[str]:
        """The text in blocks of whole characters. Bytes that are not UTF-8: lone surrogates."""
        return _decode(self.blocks(start, stop))

    @contextmanager
    def unchanged(self, span: Span) -> Iterator[Iterable[str]]:
        """The span as `strings` of it. Raises RunFailure at the end of the block if what was read
        in it are not the bytes that the span's digest is of."""
        digest = hashlib.sha256()

        def blocks() -> Iterator[bytes]:
            for block in self.blocks(span.start, span.stop):
                digest.update(block)
                yield block

        strings = _decode(blocks())
        try:
            yield strings
        except RunFailure:
            raise
        except Exception as error:  # of a text that is not the one?
            self._require_read(strings, digest, span, error)
            raise
        self._require_read(strings, digest, span)

    def _require_read(
        self, strings: Iterator[str], digest: Any, span: Span, error: Exception | None = None
    ) -> None:
        for _ in strings:  # what was left unread
            pass
        if digest.hexdigest() != span.sha256 or not self._is_as_it_was():
            raise RunFailure(
                f"{self._source!s} changed while it was being read; start again"
            ) from error

    def _is_as_it_was(self) -> bool:
        try:
            return self._stat() == self._state
        except OSError:
            return False

    def _stat(self) -> tuple[int, int]:
        if isinstance(self._source, bytes):
            return len(self._source), 0
        status = self._source.stat()
        return status.st_size, status.st_mtime_ns

    def cut(self, share: float) -> int:
        """Where a share of the text ends: the nearest start of a character."""
        # Rounded first: 0.7 + 0.1 < 0.8 in floating point would move the cut by a byte.
        return _character_start(self, int(round(share * self.size, 6)))

    def notes(self) -> list[str]:
        """What a reader of the scores must know about the text, one sentence each."""
        if packed := packed_as(self):
            return [
                f"the text looks like {packed}: it is trained on as it is; if that is not meant, "
                "unpack it or convert it to UTF-8 first"
            ]
        return []

    def scored(self, span: Span) -> NDArray[np.bool_] | None:
        """Which predictions of a span count in a score; None: all."""
        return None

    def spans(self, parts: Iterable[tuple[int, int]]) -> tuple[Span, list[Span]]:
        """The whole text and its parts, which lie one after the other, in one reading."""
        whole, spans = hashlib.sha256(), []
        for start, stop in parts:
            digest = hashlib.sha256()
            for block in self.blocks(start, stop):
                digest.update(block)
                whole.update(block)
            spans.append(Span(start, stop, digest.hexdigest()))
        return Span(0, self.size, whole.hexdigest()), spans


class JoinedText(Text):
    """Files or records as one text (`join`). passed_over: what lies beside them, unread."""

    def __init__(self, path: Path, counts: Counts, passed_over: list[Path]) -> None:
        super().__init__(path)
        self.counts = counts | {"passed_over": len(passed_over)}
        self._passed_over = passed_over

    def notes(self) -> list[str]:
        notes = []
        if count := self.counts["replaced"]:
            notes.append(f"{count:,} bytes that are not UTF-8 were replaced by � (data.errors)")
        if count := self.counts["empty"]:
            notes.append(f"{count:,} of {self.counts['texts']:,} files or records are empty")
        if places := self._passed_over:
            notes.append(passed_over_note(places))
        return notes


def passed_over_note(
    places: Sequence[Path], what: str = "hidden files and folders and linked folders"
) -> str:
    """places: what lies in the named ones, and is not read."""
    shown = ", ".join(map(str, places[:SHOWN])) + (", …" if len(places) > SHOWN else "")
    return f"{len(places):,} {what} are not read: {shown}"


def _decode(blocks: Iterable[bytes]) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    for block in blocks:
        yield decoder.decode(block)
    yield decoder.decode(b"", final=True)


class Corpus(ABC):
    """A source of text. split: the shares of train, validation and test, by bytes, or of
    documents by number. order: of the rows trained on: `random`, or `shuffled` (without
    replacement)."""

    of_documents = False
    """Whether it is a list of documents, each scored from its own beginning alone."""

    rows: str | None = None
    """How documents make the rows that are trained on; None for one text (`DocumentCorpus`)."""

    words: Sequence[str] | None = None
    """The names of its ids, if it has ids already in place of text."""

    path: Any = ()
    """The files and folders that were typed for it, one or several, if any were."""

    found: str | None = None
    """The name of the text that was read, if its file of conf/data may read several."""

    texts: Mapping[str, Corpus] = {}
    """Of a mix its corpora, by their names."""

    weights: Mapping[str, float] | None = None
    """Of a mix the share of the rows that each of them gives; None: by their tokens."""

    @property
    def several(self) -> str | None:
        """What it is in place of one long text, in words; None: it is one."""
        return "a mix" if self.texts else "documents" if self.of_documents else None

    def __init__(self, split: list[float], order: str = "random") -> None:
        if len(split) != 3 or min(split) < 0 or not math.isclose(sum(split), 1.0, abs_tol=1e-9):
            raise ValueError(f"split={split} must be three shares that add up to 1")
        if order not in ("random", "shuffled"):
            raise ValueError(f"order={order} must be random or shuffled")
        self.split, self.order = split, order

    @abstractmethod
    def read(self, assets: Assets) -> Text:
        """The whole text. Raises UsageError if it is not available."""

    def further(self) -> dict[str, Text]:
        """Texts beside it that are scored at each evaluation, by their names."""
        return {}

    def moved_to(self, path: Path) -> Corpus:
        """The same corpus, whose file lies elsewhere now."""
        return TextFile(str(path), self.split)


class Download(Corpus):
    """A file with a known digest. fallback: `python_docs` replaces it, with a warning, if it is not
    available."""

    def __init__(
        self,
        file: str,
        url: str,
        sha256: str,
        split: list[float],
        fallback: str | None = None,
        order: str = "random",
    ) -> None:
        super().__init__(split, order)
        if file in ("", "..") or file != Path(file).name or "\0" in file:
            raise ValueError(f"file={file!r} must be the plain name of a file")
        if fallback not in (None, "python_docs"):
            raise ValueError(f"fallback={fallback} must be python_docs or null")
        self.file, self.url, self.sha256, self.fallback = file, url, sha256, fallback

    def read(self, assets: Assets) -> Text:
        try:
            text = Text(assets.find(self.file, self.url, self.sha256))
            if self.fallback:
                self.found = Path(self.file).stem
            return text
        except UsageError as error:
            if self.fallback is None:
                raise
            _warn_once(
                f"{error}\nTRAINING ON THE PYTHON DOCUMENTATION INSTEAD: the numbers can't be "
                f"compared with those of {self.file}"
            )
            self.found = self.fallback
            return PythonDocs(self.split).read(assets)


@functools.cache
def _warn_once(notice: str) -> None:
    """Once per process, because each job of a sweep gives the same warning."""
    line = "!" * 88
    print(f"{line}\n{notice}\n{line}", file=sys.stderr)


class TextFile(Corpus):
    """Text in files. path: a file, a glob, a folder, or a list of them (`find_files`). errors: what
    happens to bytes that are not UTF-8 (`TextReader`); None: path is one file, whose bytes are
    taken as they are. field: of a record. separator: between two files, and between two records.
    """

    def __init__(
        self,
        path: str | list[str],
        split: list[float],
        errors: str | None = None,
        field: str = "text",
        separator: str = "\n\n",
        order: str = "random",
    ) -> None:
        super().__init__(split, order)
        if errors not in (None, "strict", "replace"):
            raise ValueError(f"errors={errors} must be strict, replace or null")
        if errors is None and not isinstance(path, str):
            raise ValueError("path: of one file alone the bytes are taken as they are")
        self.path, self.errors, self.field, self.separator = path, errors, field, separator
        self.found = called(path)

    def read(self, assets: Assets) -> Text:
        if self.errors is None:
            path = expand(str(self.path))
            open_regular(path, KEY).close()
            return Text(path)
        found = find_files(self.path)
        is_plain = self.errors == "strict" and len(found.files) == 1 and not found.passed_over
        if is_plain and format_of(found.files[0]) == ("", ""):
            require_text(found.files[0])
            return Text(found.files[0])
        path, counts = join(found.files, self.errors, self.field, self.separator, assets)
        return JoinedText(path, counts, found.passed_over)

    def moved_to(self, path: Path) -> Corpus:
        return TextFile(str(path), self.split, self.errors, self.field, self.separator, self.order)


def called(path: str | list[str]) -> str | None:
    """The name of one's own text in tables: that of its file or folder, up to the first dot, with
    the number of others; None if nothing of it can be in a name. Raises ValueError for no path."""
    if not path or "" in (paths := [path] if isinstance(path, str) else path):
        raise ValueError("path is empty")
    first, *more = paths
    stem = re.sub(r"[^\w+-]+", "-", expand(first).name.partition(".")[0]).strip("+-")[:90]
    return (f"{stem}+{len(more)}" if more else stem) or None


class PythonDocs(Corpus):
    """The language reference in every CPython (`pydoc_data.topics`)."""

    def read(self, assets: Assets) -> Text:
        from pydoc_data.topics import topics

        return Text("\n\n".join(topics[name] for name in sorted(topics)).encode())


def packed_as(text: Text) -> str | None:
    """What a text is instead of plain text, by its first bytes; None if it may be plain."""
    return looks_like(text.read(0, max(map(len, PACKED))))


def split_points(text: Text, shares: list[float]) -> list[tuple[int, int]]:
    """Start and end of each part. The cuts are at the cumulative shares, if the text has none."""
    if text.cuts is not None:
        return list(itertools.pairwise([0, *text.cuts, text.size]))
    cuts = [0]
    for share in (shares[0], shares[0] + shares[1]):
        cuts.append(max(cuts[-1], text.cut(share)))
    return list(itertools.pairwise([*cuts, text.size]))


def _character_start(text: Text, cut: int) -> int:
    for distance in range(4):  # a UTF-8 character has at most 3 continuation bytes
        for candidate in (cut - distance, cut + distance):
            if 0 <= candidate <= text.size:
                byte = text.read(candidate, candidate + 1)
                if not byte or byte[0] & 0xC0 != 0x80:
                    return candidate
    return cut  # no UTF-8 near the cut
