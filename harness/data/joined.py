"""Several files, or the records in them, as one text, which is kept in the cache."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from harness.common.errors import RunFailure, UsageError
from harness.common.files import atomic_write, remove_leftovers, sha256_of, write_atomically
from harness.common.outside import open_regular
from harness.data.assets import Assets
from harness.data.sources import KEY, Borrowed, TextReader, format_of

FORMAT = 1  # version of what is kept; increase it when equal files would make another text
Counts = dict[str, int]
"""Of the `files` and `texts` that were joined, of the `empty` ones among these texts, and of bytes
that were `replaced`."""


def join(
    files: list[Path], errors: str, field: str, separator: str, assets: Assets
) -> tuple[Path, Counts]:
    """One text of all, `separator` between two. An empty one adds nothing.

    Raises UsageError for what can't be read (`TextReader.texts`). A run's folder may name any
    files: of a run, nothing is written but the text that it was trained on.
    """
    digests = [_digest(path) for path in files]
    kinds = [format_of(path) for path in files]
    key = json.dumps([FORMAT, errors, field, separator, kinds, digests])
    folder = assets.cache / "joined" / hashlib.sha256(key.encode()).hexdigest()
    remove_leftovers(folder)
    counts = _read_counts(folder)
    if counts is None:
        reader = TextReader(errors, field)
        if assets.confirmed is not None:
            digest = hashlib.sha256()
            _write_texts(digest.update, files, digests, reader, separator)
            if digest.hexdigest() not in assets.expected:
                raise UsageError(
                    "data: the text is not the one this run was trained on (SHA-256 "
                    f"{digest.hexdigest()}, the run's {', '.join(assets.expected) or None})"
                )
            reader = TextReader(errors, field)
        digest = hashlib.sha256()
        with atomic_write(folder / "text") as target:

            def write(piece: bytes) -> None:
                digest.update(piece)
                target.write(piece)

            counts = _write_texts(write, files, digests, reader, separator)
        meta = {"counts": counts, "text": digest.hexdigest()}
        write_atomically(folder / "meta.json", json.dumps(meta).encode())
    return folder / "text", counts


def require_text(path: Path) -> None:
    """Raises UsageError if a file without records is no UTF-8."""
    with open_regular(path, KEY) as file:
        for text in TextReader("strict", "").texts(path, file):
            for _ in text:
                pass


def _write_texts(
    write: Callable[[bytes], object],
    files: list[Path],
    digests: list[str],
    reader: TextReader,
    separator: str,
) -> Counts:
    """Raises RunFailure if a file is no longer the one that its digest is of."""
    between, texts, filled = separator.encode(), 0, 0
    for path, digest in zip(files, digests, strict=True):
        with _hashed(path, digest) as file:
            for text in reader.texts(path, file):
                texts, is_empty = texts + 1, True
                for piece in filter(None, text):
                    if is_empty and filled:
                        write(between)
                    filled, is_empty = filled + is_empty, False
                    write(piece.encode())
    replaced = reader.replaced
    return {"files": len(files), "texts": texts, "empty": texts - filled, "replaced": replaced}


class _Hashing(Borrowed):
    """A file that is read once, from its start to its end, and the digest of what was read."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.digest = hashlib.sha256()

    def readinto(self, buffer: Any) -> int:
        size = super().readinto(buffer)
        self.digest.update(buffer[:size])
        return size


@contextmanager
def _hashed(path: Path, digest: str) -> Iterator[IO[bytes]]:
    """The file. Raises RunFailure at the end if what was read is not what the digest is of."""
    with open_regular(path, KEY) as opened:
        raw = _Hashing(opened)
        with io.BufferedReader(raw) as file:
            yield file
            while file.read(1 << 20):
                pass
            if raw.digest.hexdigest() != digest:
                raise RunFailure(f"{path} changed while it was being read; start again")


def _digest(path: Path) -> str:
    with open_regular(path, KEY) as file:
        try:
            return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise UsageError(f"{KEY}{path} can't be read: {error.strerror}") from error


def _read_counts(folder: Path) -> Counts | None:
    """Those of the text that is kept; None if it is missing or damaged."""
    try:
        meta = json.loads((folder / "meta.json").read_text())
        counts = {str(name): int(count) for name, count in meta["counts"].items()}
        return counts if sha256_of(folder / "text") == meta["text"] else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
