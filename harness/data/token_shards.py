"""Shards that were encoded before: a folder of token ids.

`token_shards.json` says what they are, with the SHA-256 of each; `first.jsonl` has the text of the
first documents; each `*.tokens` is a shard: the ids of its documents, a table of these (`TABLE`),
and a line about both (`Encoded`), by which an unfinished folder is gone on with.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from harness.common.errors import RunFailure, UsageError
from harness.common.outside import open_regular
from harness.data.shards import Ids, Shards
from harness.data.sources import KEY
from zoo_tokenizers import Tokenizer

FORMAT = 1
MANIFEST, FIRST = "token_shards.json", "first.jsonl"
# A document: how many ids, characters that the tokenizer lacks, bytes of the shard that were
# replaced so far; and the SHA-256 of its text.
TABLE = np.dtype([("tokens", "<u4"), ("unknown", "<u4"), ("replaced", "<u8"), ("sha256", "V32")])
ROWS_AT_A_TIME = 1024  # of the table
EMPTY = hashlib.sha256(b"").digest()


class Encoded(NamedTuple):
    """A shard. name, size: of its source, in bytes. sha256: of ids and table."""

    name: str
    size: int
    tokens: int
    documents: int
    sha256: str


def file_name(which: int) -> str:
    return f"{which:06}.tokens"


@dataclass(frozen=True)
class EncodedDocument:
    """A document without its text (`AnyDocument`). ids: of the tokenizer that wrote them."""

    ids: Ids
    unknown: int
    replaced: int
    digest: bytes

    @property
    def is_empty(self) -> bool:
        return self.digest == EMPTY

    def encoded(self, tokenizer: Tokenizer) -> tuple[Ids, int]:
        return self.ids, self.unknown


@dataclass(frozen=True)
class TokenShards(Shards):
    """Those of a folder. source: the `sha256` of the shards that were encoded, which is theirs,
    too: a training may go on with either. type: of the ids. first_sha256: of the first documents;
    is_all: whether these are all. tokenizer: the digest of the one that wrote them."""

    folder: Path
    source: str
    type: str
    tokenizer: str
    first_sha256: str
    is_all: bool
    shards: Sequence[Encoded]
    lanes: int
    buffer: int

    @classmethod
    def open(cls, folder: Path, reading: Mapping[str, Any], lanes: int, buffer: int) -> TokenShards:
        """reading: how the documents are read. Raises UsageError for a folder that is damaged or
        not finished, or whose documents were read otherwise."""
        meta = read_manifest(folder)
        if meta["shards"] is None:
            raise UsageError(
                f"{KEY}{folder}: its token shards are not finished: give the same command of "
                "harness.prepare again"
            )
        for key, value in reading.items():
            if meta["reading"].get(key) != value:
                raise UsageError(
                    f"{KEY}{folder}: its documents were read with data.{key}="
                    f"{json.dumps(meta['reading'].get(key))}: give the same"
                )
        beginning, shards = meta["first_documents"], meta["shards"]
        return cls(
            folder, meta["source"], meta["type"], meta["tokenizer"], beginning["sha256"],
            beginning["all"], shards, min(lanes, len(shards)), buffer,
        )  # fmt: skip

    @property
    def names(self) -> Sequence[str]:
        return [str(self.folder / file_name(which)) for which in range(len(self))]

    def __len__(self) -> int:
        return len(self.shards)

    @property
    def bytes(self) -> int:
        return sum(shard.size for shard in self.shards)

    @property
    def sha256(self) -> str:
        return self.source

    def notes(self) -> list[str]:
        tokens, documents = (
            sum(getattr(shard, name) for shard in self.shards) for name in ("tokens", "documents")
        )
        return [
            f"training reads {len(self):,} shards of {tokens:,} tokens in {documents:,} documents, "
            "encoded by harness.prepare, as it goes; what is split, and what a tokenizer learns "
            "from, are their first data.first_bytes alone"
        ]

    def require(self, tokenizer: Tokenizer) -> None:
        if tokenizer.digest != self.tokenizer:
            raise UsageError(
                f"{KEY}{self.folder} was encoded by another tokenizer (SHA-256 {self.tokenizer}, "
                f"this one's {tokenizer.digest}): take that one (what learns needs the same "
                "data.first_bytes, data.split and data.shuffle), or encode the text again"
            )

    def texts(self) -> Iterator[str]:
        """Of the first documents. Raises UsageError if more are asked for."""
        path = self.folder / FIRST
        with open_regular(path, KEY) as file:
            content = file.read()
        if hashlib.sha256(content).hexdigest() != self.first_sha256:
            raise UsageError(f"{KEY}{path} has changed since harness.prepare wrote it")
        for line in content.splitlines():
            yield json.loads(line)["text"]
        if not self.is_all:
            raise UsageError(
                f"{KEY}{self.folder} has the text of its first documents alone: lower "
                "data.first_bytes, or give more to harness.prepare --out, for another folder"
            )

    def documents(self, which: int) -> Iterator[EncodedDocument]:
        """Raises RunFailure for a shard that is not what was written."""
        path, shard = self.folder / file_name(which), self.shards[which]
        content = read_content(path, shard.tokens, shard.documents, self.type)
        if content is None or hashlib.sha256(content).hexdigest() != shard.sha256:
            raise RunFailure(
                f"{path} is damaged, or has changed since harness.prepare wrote it: remove it, and "
                "give the same command of harness.prepare again"
            )
        table = np.frombuffer(content[shard.tokens * np.dtype(self.type).itemsize :], TABLE)
        ids = np.frombuffer(content, self.type, shard.tokens)
        end = 0
        for at in range(0, len(table), ROWS_AT_A_TIME):
            for tokens, unknown, replaced, digest in table[at : at + ROWS_AT_A_TIME].tolist():
                start, end = end, end + tokens
                yield EncodedDocument(ids[start:end], unknown, replaced, digest)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Raises UsageError if it is damaged, or of another version."""
    path = folder / MANIFEST
    try:
        with open_regular(path, KEY) as file:
            meta: dict[str, Any] = json.loads(file.read())
        if meta.pop("sha256") != digest_of(meta):
            raise ValueError("its digest is another one")
        if meta["format"] == FORMAT and meta["shards"] is not None:
            meta["shards"] = [Encoded(*each) for each in meta["shards"]]
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise UsageError(
            f"{KEY}{path} is damaged ({error!s:.200}): remove it, and give the same command of "
            "harness.prepare again"
        ) from error
    if meta["format"] != FORMAT:
        raise UsageError(f"{KEY}{path} is of format {meta['format']}, and this reads {FORMAT}")
    return meta


def digest_of(meta: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta).encode()).hexdigest()


def read_content(path: Path, tokens: int, documents: int, kind: str) -> memoryview | None:
    """Ids and table of a shard; None if the file is shorter. Raises UsageError if it can't be
    read."""
    size = tokens * np.dtype(kind).itemsize + documents * TABLE.itemsize
    with open_regular(path, KEY) as file:
        if os.fstat(file.fileno()).st_size < size:
            return None
        if size == 0:
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ))
