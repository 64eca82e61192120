"""A corpus that is read while a model trains, because it is too large to be stored or encoded
before."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.common import contained
from harness.common.paths import expand
from harness.data.assets import Assets
from harness.data.corpus import Corpus, called
from harness.data.documents import MOST_BYTES, DocumentCorpus, DocumentText, Rows
from harness.data.shards import FileShards, Shards
from harness.data.token_shards import MANIFEST, TokenShards


class StreamedDocuments(DocumentCorpus):
    """Documents in shards. The first of them, up to `first_bytes`, are split as those of any other
    corpus: validation and test are held out, and from train a tokenizer learns. Training reads all
    shards but for what is held out.

    lanes: shards that are read at the same time. buffer: rows of a lane that are shuffled among
    each other.
    """

    def __init__(
        self,
        split: list[float],
        shuffle: int | None,
        rows: Rows,
        first_bytes: int,
        lanes: int,
        buffer: int,
    ) -> None:
        super().__init__(split, shuffle, rows)
        if rows == "alone":
            raise ValueError("rows=alone is for corpora that are encoded whole: packed or across")
        for name, value in (("first_bytes", first_bytes), ("lanes", lanes), ("buffer", buffer)):
            if value < 1:
                raise ValueError(f"{name}={value} must be 1 or more")
        if first_bytes > (most := int(MOST_BYTES * contained.factor())):
            raise ValueError(f"first_bytes={first_bytes:,} are held in memory: {most:,} at most")
        self.first_bytes, self.lanes, self.buffer = first_bytes, lanes, buffer


class Stream(StreamedDocuments):
    """Of files (`FileShards`), or of what harness.prepare made of them (`TokenShards`)."""

    def __init__(
        self,
        path: str | list[str],
        split: list[float],
        shuffle: int | None = None,
        rows: Rows = "packed",
        errors: str = "replace",
        field: str = "text",
        divider: str | None = None,
        first_bytes: int = 10_000_000,
        lanes: int = 2,
        buffer: int = 1024,
    ) -> None:
        super().__init__(split, shuffle, rows, first_bytes, lanes, buffer)
        if errors not in ("strict", "replace"):
            raise ValueError(f"errors={errors} must be strict or replace")
        if divider == "":
            raise ValueError("divider='' divides nothing: give a text, or null for line breaks")
        self.path, self.errors, self.field, self.divider = path, errors, field, divider
        self.found = called(path)

    @property
    def reading(self) -> dict[str, Any]:
        """What decides which documents a file has."""
        return {"errors": self.errors, "field": self.field, "divider": self.divider}

    def read(self, assets: Assets) -> DocumentText:
        shards: Shards
        if isinstance(self.path, str) and os.path.exists(expand(self.path) / MANIFEST):
            shards = TokenShards.open(
                expand(self.path), self.reading, lanes=self.lanes, buffer=self.buffer
            )
        else:
            shards = FileShards.find(
                self.path, **self.reading, lanes=self.lanes, buffer=self.buffer
            )
        text = self.text_of(first(shards.texts(), self.first_bytes))
        text.shards = shards
        return text

    def moved_to(self, path: Path) -> Corpus:
        return Stream(
            str(path), self.split, self.shuffle, self.rows, self.errors, self.field, self.divider,
            self.first_bytes, self.lanes, self.buffer,
        )  # fmt: skip


def first(texts: Iterable[str], size: float) -> list[bytes]:
    """The first ones, until they have so many bytes together."""
    found = list[bytes]()
    for text in texts if size else ():
        found.append(text.encode())
        size -= len(found[-1])
        if size <= 0:
            break
    return found
