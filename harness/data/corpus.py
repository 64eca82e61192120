"""Where text comes from, and how it is split: by bytes, before anything is tokenized."""

from __future__ import annotations

import codecs
import functools
import hashlib
import itertools
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

from harness.common.errors import RunFailure, UsageError
from harness.data.assets import Assets

BLOCK = 1 << 20  # bytes read at a time


class Text:
    """The bytes of a file, or in memory, read a piece at a time: it may not fit in memory."""

    def __init__(self, source: Path | bytes) -> None:
        self._source = source
        self._state = self._look()
        self.size = self._state[0]

    def read(self, start: int, stop: int) -> bytes:
        if isinstance(self._source, bytes):
            return self._source[start:stop]
        with self._source.open("rb") as file:
            file.seek(start)
            return file.read(stop - start)

    def blocks(self, start: int, stop: int) -> Iterator[bytes]:
        for at in range(start, stop, BLOCK):
            yield self.read(at, min(at + BLOCK, stop))

    def strings(self, start: int, stop: int) -> Iterator[str]:
        """As text, cut between characters. Bytes that are not UTF-8 survive as lone surrogates."""
        decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        for block in self.blocks(start, stop):
            yield decoder.decode(block)
        yield decoder.decode(b"", final=True)

    def require_unchanged(self) -> None:
        """Raises RunFailure if the file is not what it was when reading began."""
        if self._look() != self._state:
            raise RunFailure(f"{self._source!s} changed while it was read; start again")

    def _look(self) -> tuple[int, int]:
        if isinstance(self._source, bytes):
            return len(self._source), 0
        status = self._source.stat()
        return status.st_size, status.st_mtime_ns

    def digest(self, start: int, stop: int) -> str:
        """SHA-256 of the bytes from start to stop."""
        digest = hashlib.sha256()
        for block in self.blocks(start, stop):
            digest.update(block)
        return digest.hexdigest()


class Corpus(ABC):
    """Where text comes from. split: the shares of train, validation and test, by bytes."""

    found: str | None = None
    """Where the configuration leaves open which text it is: the name of the one that was read."""

    def __init__(self, split: list[float]) -> None:
        if len(split) != 3 or min(split) < 0 or not math.isclose(sum(split), 1.0, abs_tol=1e-9):
            raise ValueError(f"split={split} must be three shares that add up to 1")
        self.split = split

    @abstractmethod
    def read(self, assets: Assets) -> Text:
        """The whole text, as the bytes of its file. Raises UsageError if it can't be had."""


class Download(Corpus):
    """A file of known digest; `fallback: python_docs` stands in, loudly, when it can't be had."""

    def __init__(
        self, file: str, url: str, sha256: str, split: list[float], fallback: str | None = None
    ) -> None:
        super().__init__(split)
        if file in ("", "..") or file != Path(file).name or "\0" in file:
            raise ValueError(f"file={file!r} must be the plain name of a file")
        if fallback not in (None, "python_docs"):
            raise ValueError(f"fallback={fallback} must be python_docs or null")
        self.file, self.url, self.sha256, self.fallback = file, url, sha256, fallback

    def read(self, assets: Assets) -> Text:
        if self.fallback is None:
            return Text(assets.find(self.file, self.url, self.sha256))
        try:
            text = Text(assets.find(self.file, self.url, self.sha256))
            self.found = Path(self.file).stem
        except UsageError as error:
            _shout(
                f"{error}\nTRAINING ON THE PYTHON DOCUMENTATION INSTEAD: these numbers do not "
                f"compare with any of {self.file}"
            )
            self.found = self.fallback
            text = PythonDocs(self.split).read(assets)
        return text


@functools.cache
def _shout(notice: str) -> None:
    """Once in a process: each job of a sweep would say the same."""
    line = "!" * 88
    print(f"{line}\n{notice}\n{line}", file=sys.stderr)


class TextFile(Corpus):
    """Any file; its bytes are taken as they are."""

    def __init__(self, path: str, split: list[float]) -> None:
        super().__init__(split)
        self.path = Path(path).expanduser()

    def read(self, assets: Assets) -> Text:
        try:
            self.path.open("rb").close()
            return Text(self.path)
        except OSError as error:
            raise UsageError(f"data.path={self.path} can't be read: {error.strerror}") from error


class PythonDocs(Corpus):
    """The reference text that ships with every CPython (`pydoc_data.topics`)."""

    def read(self, assets: Assets) -> Text:
        from pydoc_data.topics import topics

        return Text("\n\n".join(topics[name] for name in sorted(topics)).encode())


def split_points(text: Text, shares: list[float]) -> list[tuple[int, int]]:
    """Where each part begins and ends: cut by bytes at the cumulated shares, each cut moved to the
    nearest start of a character."""
    cuts = [0]
    for share in (shares[0], shares[0] + shares[1]):
        # Rounded first: 0.7 + 0.1 is a hair below 0.8 in floating point, a whole byte in the cut.
        cuts.append(max(cuts[-1], _character_start(text, int(round(share * text.size, 6)))))
    return list(itertools.pairwise([*cuts, text.size]))


def split_bytes(content: bytes, shares: list[float]) -> list[bytes]:
    """The parts of a text in memory."""
    return [content[start:stop] for start, stop in split_points(Text(content), shares)]


def _character_start(text: Text, cut: int) -> int:
    for distance in range(4):  # a UTF-8 character has at most 3 continuation bytes
        for candidate in (cut - distance, cut + distance):
            if 0 <= candidate <= text.size and not _continues(text, candidate):
                return candidate
    return cut  # not UTF-8 hereabouts: any place is as good


def _continues(text: Text, at: int) -> bool:
    return any(byte & 0xC0 == 0x80 for byte in text.read(at, at + 1))
