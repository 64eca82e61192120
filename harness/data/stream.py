"""A corpus that is read while a model trains, because it is too large to be stored or encoded
before."""

from __future__ import annotations

from pathlib import Path

from harness.common import contained
from harness.data.assets import Assets
from harness.data.corpus import Corpus, called
from harness.data.documents import MOST_BYTES, DocumentCorpus, DocumentText, Rows
from harness.data.shards import Shards


class Stream(DocumentCorpus):
    """Documents in files (`Shards`). The first of them, up to `first_bytes`, are split as those of
    any other corpus: validation and test are held out, and from train a tokenizer learns. Training
    reads all shards but for what is held out.

    lanes: shards that are read at the same time. buffer: rows of a lane that are shuffled among
    each other.
    """

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
        super().__init__(split, shuffle, rows)
        if errors not in ("strict", "replace"):
            raise ValueError(f"errors={errors} must be strict or replace")
        if divider == "":
            raise ValueError("divider='' divides nothing: give a text, or null for line breaks")
        if rows == "alone":
            raise ValueError("rows=alone is for corpora that are encoded whole: packed or across")
        for name, value in (("first_bytes", first_bytes), ("lanes", lanes), ("buffer", buffer)):
            if value < 1:
                raise ValueError(f"{name}={value} must be 1 or more")
        if first_bytes > (most := int(MOST_BYTES * contained.factor())):
            raise ValueError(f"first_bytes={first_bytes:,} are held in memory: {most:,} at most")
        self.path, self.errors, self.field, self.divider = path, errors, field, divider
        self.first_bytes, self.lanes, self.buffer = first_bytes, lanes, buffer
        self.found = called(path)

    def read(self, assets: Assets) -> DocumentText:
        self._shards = Shards.find(
            self.path, self.errors, self.field, self.divider, self.lanes, self.buffer
        )
        text = super().read(assets)
        text.shards = self._shards
        return text

    def documents(self, assets: Assets) -> list[bytes]:
        found, size = list[bytes](), 0
        for which in range(len(self._shards)):
            for text, _ in self._shards.documents(which):
                found.append(text.encode())
                size += len(found[-1])
                if size >= self.first_bytes:
                    return found
        return found

    def moved_to(self, path: Path) -> Corpus:
        return Stream(
            str(path), self.split, self.shuffle, self.rows, self.errors, self.field, self.divider,
            self.first_bytes, self.lanes, self.buffer,
        )  # fmt: skip
