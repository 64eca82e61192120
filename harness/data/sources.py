"""The files that a path names, and the texts that lie in them."""

from __future__ import annotations

import bz2
import codecs
import csv
import glob
import gzip
import io
import json
import lzma
import os
import re
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from harness.common import contained
from harness.common.errors import UsageError
from harness.common.paths import expand
from harness.common.values import did_you_mean

KEY = "data.path="  # begins a message
BLOCK = 1 << 20  # bytes read at a time
ROWS_AT_A_TIME = 1024  # of a Parquet file
MOST_FILES = 100_000  # a folder of a run from elsewhere may name the root of this machine
BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"
PACKINGS = (".gz", ".xz", ".bz2", ".zst")
TABLES = (".parquet", ".arrow")
RECORDS = (".jsonl", ".ndjson", ".csv", *TABLES)
NOT_READ = {
    ".zip": "unpack it: unzip FILE",
    ".tokens": "it is one of a folder of token shards: data=stream data.path=FOLDER",
}
PACKED = {
    b"\x1f\x8b": "a gzip file",
    b"\xfd7zXZ\0": "an xz file",
    b"BZh": "a bzip2 file",
    b"\x28\xb5\x2f\xfd": "a zstd file",
    b"PK\x03\x04": "a zip file",
    b"%PDF-": "a PDF",
    b"PAR1": "a Parquet file",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_NO_TEXT = re.compile("[\ud800-\udfff]")  # a byte that is not UTF-8, or half a character of JSON


class Found(NamedTuple):
    """Files in their order. passed_over: hidden files and folders, and linked folders, that lie in
    the named ones."""

    files: list[Path]
    passed_over: list[Path]


def find_files(named: str | Sequence[str]) -> Found:
    """The files that a path names: itself, those that a glob matches, those in a folder at any
    depth, sorted by name; of several paths in the order given.

    Raises UsageError if there are none, and for a file that is named twice.
    """
    found = Found([], [])
    for path in [named] if isinstance(named, str) else named:
        before = len(found.files)
        place = expand(path)
        if os.path.isdir(place):
            _walk(place, found)
        elif os.path.lexists(place) or not glob.has_magic(path) or "\0" in path:
            found.files.append(place)
        else:
            for match in sorted(map(Path, glob.glob(str(place), recursive=True))):
                if not os.path.isdir(match):
                    found.files.append(match)
                elif "**" not in path:  # which matches what lies in it, too
                    _walk(match, found)
        if len(found.files) == before:
            raise UsageError(f"{KEY}{path} names no file")
    file, times = Counter(found.files).most_common(1)[0]
    if times > 1:
        raise UsageError(f"{KEY}{file} is named twice")
    return found


def _walk(folder: Path, found: Found) -> None:
    most = int(MOST_FILES * contained.factor())
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise UsageError(f"{KEY}{folder} can't be read: {error.strerror}") from error
    for entry in entries:
        path = folder / entry.name
        if entry.name.startswith(".") or (entry.is_symlink() and os.path.isdir(path)):
            found.passed_over.append(path)
        elif entry.is_dir():
            _walk(path, found)
        else:
            found.files.append(path)
            if len(found.files) > most:
                raise UsageError(
                    f"{KEY}{folder} belongs to more than {most:,} files; $ZOO_LIMITS=10 allows ten "
                    "times as many"
                )


def format_of(path: Path) -> tuple[str, str]:
    """By the end of its name: how a file is packed, and how what it holds is written; empty for
    plain text. Raises UsageError for a format that is not read."""
    name, kind = os.path.splitext(path.name.lower())
    packed = kind if kind in PACKINGS else ""
    if packed:
        kind = os.path.splitext(name)[1]
    if kind in NOT_READ:
        raise UsageError(f"{KEY}{path}: {kind} is not read; {NOT_READ[kind]}")
    return packed, kind if kind in RECORDS else ""


class Borrowed(io.RawIOBase):
    """A file that stays open when whoever reads it is done."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._file.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)


def unpacked(path: Path, file: IO[bytes]) -> IO[bytes]:
    """What a file holds, by the end of its name; the file itself if it is not packed."""
    packed, _ = format_of(path)
    if packed == ".zst":
        _require_pyarrow(path, "zstd files", "unpack it: zstd -d FILE")
        import pyarrow

        return io.BufferedReader(pyarrow.CompressedInputStream(Borrowed(file), "zstd"))
    unpack: dict[str, Callable[[Any], Any]] = {
        ".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open,
    }  # fmt: skip
    return cast(IO[bytes], unpack[packed](file)) if packed else file


def _require_pyarrow(path: Path, what: str, instead: str) -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"{KEY}{path}: {what} need pyarrow: pip install 'language-model-zoo[parquet]', or "
            f"{instead}"
        ) from error


def looks_like(start: bytes) -> str | None:
    """What a file is instead of plain text, by its first bytes; None if it may be plain."""
    return next((name for magic, name in PACKED.items() if start.startswith(magic)), None)


@dataclass
class TextReader:
    """Reads texts. errors: `strict` refuses what is not UTF-8, `replace` puts � in place of each
    such byte. field: of a record, the one that holds the text. replaced: how many were."""

    errors: str
    field: str
    replaced: int = 0

    def texts(self, path: Path, file: IO[bytes]) -> Iterator[Iterable[str]]:
        """The texts in a file, each in pieces: of records one for each, of all others the whole; of
        packed files what they hold. A text is to be read before the next.

        Raises UsageError, naming the place, for what is no text, no record, or damaged.
        """
        records, file = format_of(path)[1], unpacked(path, file)
        if records == ".csv":
            yield from self._csv(path, file)
        elif records in TABLES:
            yield from self._table(path, file, is_parquet=records == ".parquet")
        elif records:
            yield from self._json_lines(path, file)
        else:
            yield self._plain(path, file)

    def _plain(self, path: Path, file: IO[bytes]) -> Iterator[str]:
        where = str(path)
        decoder, at = codecs.getincrementaldecoder("utf-8")("surrogateescape"), 0
        for block in read_blocks(path, file):
            if at == 0 and (packed := looks_like(block)):
                where += f", which looks like {packed},"
            text = decoder.decode(block)
            yield self._clean(text, where, at)
            at += len(text.encode("utf-8", "surrogateescape"))
        yield self._clean(decoder.decode(b"", final=True), where, at)

    def _lines(self, path: Path, file: IO[bytes]) -> Iterator[str]:
        """Without the mark of byte order that may begin the file. What is not UTF-8 is refused, or
        left for `_clean` as lone surrogates."""
        at = 0
        for line in _read(path, file.readline):
            text = line.decode("utf-8", "surrogateescape")
            if self.errors == "strict":
                self._clean(text, str(path), at)
            yield text.removeprefix(BOM) if at == 0 else text
            at += len(line)

    def _json_lines(self, path: Path, file: IO[bytes]) -> Iterator[Iterable[str]]:
        for number, line in enumerate(self._lines(path, file), 1):
            where = f"{path} line {number}"
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UsageError(f"{KEY}{where} is not JSON: {error}") from error
            if not isinstance(record, dict):
                raise UsageError(f"{KEY}{where} is no object with a field data.field={self.field}")
            self._require_field(record, where)
            text = record[self.field]
            if not isinstance(text, str):
                raise UsageError(f"{KEY}{where}: the field {self.field} is no text: {text!r:.40}")
            yield [self._clean(text, where)]

    def _csv(self, path: Path, file: IO[bytes]) -> Iterator[Iterable[str]]:
        csv.field_size_limit(sys.maxsize)
        rows = csv.reader(self._lines(path, file), strict=True)
        head: list[str] | None = None
        try:
            for row in rows:
                where = f"{path} line {rows.line_num}"
                if head is None:
                    head = row
                    self._require_field(head, where)
                elif row:
                    if len(row) != len(head):
                        raise UsageError(
                            f"{KEY}{where} has {len(row)} fields, and the first line {len(head)}"
                        )
                    yield [self._clean(row[head.index(self.field)], where)]
        except csv.Error as error:
            raise UsageError(f"{KEY}{path} line {rows.line_num} is not CSV: {error}") from error

    def _table(self, path: Path, file: IO[bytes], is_parquet: bool) -> Iterator[Iterable[str]]:
        """A Parquet file, or one of Arrow's streams, as Hugging Face's `datasets` saves them. It is
        read into memory, for what a Parquet file holds is listed at its end."""
        _require_pyarrow(path, "Parquet and Arrow files", "write its text as .jsonl")
        import pyarrow
        from pyarrow import ipc, parquet

        content, number = b"".join(read_blocks(path, file)), 0
        try:
            buffer = pyarrow.BufferReader(content)
            table = parquet.ParquetFile(buffer) if is_parquet else ipc.open_stream(buffer)
            schema = table.schema_arrow if is_parquet else table.schema
            self._require_field(schema.names, str(path))
            kind = schema.field(self.field).type
            if kind not in (pyarrow.string(), pyarrow.large_string()):
                raise UsageError(f"{KEY}{path}: the field {self.field} is no text, but {kind}")
            batches = (
                table.iter_batches(ROWS_AT_A_TIME, columns=[self.field]) if is_parquet else table
            )
            for batch in batches:
                # As bytes, for nobody has looked whether they are UTF-8.
                for row in batch.column(self.field).cast(pyarrow.large_binary()).to_pylist():
                    number += 1
                    where = f"{path} row {number}"
                    if row is None:
                        raise UsageError(f"{KEY}{where}: the field {self.field} is no text: None")
                    yield [self._clean(row.decode("utf-8", "surrogateescape"), where, 0)]
        except (pyarrow.ArrowException, OSError, KeyError) as error:
            words = " ".join(str(error).split())
            raise UsageError(
                f"{KEY}{path} can't be read, or is not what its name says: {words:.200}"
            ) from error

    def _require_field(self, known: Iterable[str], where: str) -> None:
        names = list(known)
        if self.field not in names:
            raise UsageError(
                f"{KEY}{where} has no field {self.field!r:.80}; data.field should be one of "
                f"{', '.join(map(repr, names)):.200}.{did_you_mean(self.field, names)}"
            )

    def _clean(self, text: str, where: str, offset: int | None = None) -> str:
        """The text without what is none. offset: of the text in its file, in bytes; None: of a
        record."""
        found = _NO_TEXT.search(text)
        if found is None:
            return text
        if self.errors == "replace":
            text, count = _NO_TEXT.subn("\N{REPLACEMENT CHARACTER}", text)
            self.replaced += count
            return text
        if offset is None:
            what = f"holds half a character, \\u{ord(found[0]):04x}"
        else:
            at = offset + len(text[: found.start()].encode("utf-8", "surrogateescape"))
            what = f"is not UTF-8: byte 0x{ord(found[0]) & 0xFF:02x} at byte offset {at}"
        raise UsageError(
            f"{KEY}{where} {what}; data.errors=replace puts � in its place, data=bytes takes any "
            "file as it is"
        )


def read_blocks(path: Path, file: IO[bytes]) -> Iterator[bytes]:
    """The bytes of a file, or of what it holds. Raises UsageError if it is damaged or truncated."""
    return _read(path, partial(file.read, BLOCK))


def _read(path: Path, read: Callable[[], bytes]) -> Iterator[bytes]:
    """What `read` gives until it gives nothing."""
    while True:
        try:
            piece = read()
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise UsageError(
                f"{KEY}{path} can't be read, or is not what its name says: {error}"
            ) from error
        if not piece:
            return
        yield piece
