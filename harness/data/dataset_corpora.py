"""Corpora of Hugging Face's library `datasets`: read whole, or as a stream."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Any

from harness.common.errors import UsageError
from harness.common.values import did_you_mean, show
from harness.data.assets import Assets
from harness.data.corpus import Corpus, called
from harness.data.documents import DocumentCorpus, DocumentText, Rows, within_limit
from harness.data.hugging_face import DatasetSource, FoundSplits
from harness.data.shards import Document, TextShards
from harness.data.stream import StreamedDocuments, first

PARTS = ("train", "validation", "test")  # as most datasets call theirs


def choose_parts(
    where: str, parts: Sequence[str | None] | None, known: Mapping[str, Any]
) -> list[str | None]:
    """The dataset's own splits for train, validation and test; None for one that is cut from train.
    parts: as the user named them; None: those of the usual names. Raises UsageError."""
    chosen = [name if name in known else None for name in PARTS] if parts is None else [*parts]
    for name in (each for each in chosen if each is not None):
        if name not in known:
            raise UsageError(
                f"{where} has no split {show(name)}; data.parts should name some of "
                f"{', '.join(known):.200}.{did_you_mean(name, list(known))}"
            )
    if chosen[0] is None:
        raise UsageError(
            f"{where} has no split train: name those to take in data.parts, of "
            f"{', '.join(known):.200}: [train, validation, test], null for one to cut from train"
        )
    return chosen


def split_by_parts(
    found: Sequence[list[bytes] | None], split: Sequence[float], shuffle: int | None
) -> DocumentText:
    """found: the documents of train, validation and test; None: cut from train by `split`, which
    keeps the shares of those that are there. shuffle: of train before it is cut."""
    own = [None if each is None else [document for document in each if document] for each in found]
    train = own[0] or []
    empty = sum(len(each) for each in found if each) - sum(len(each) for each in own if each)
    if shuffle is not None:
        Random(shuffle).shuffle(train)
    cut = [share if each is None else 0.0 for share, each in zip(split[1:], own[1:], strict=True)]
    ends = [int(round(share * len(train), 6)) for share in (1 - sum(cut), 1 - cut[1])]
    pieces = [train[: ends[0]], train[ends[0] : ends[1]], train[ends[1] :]]
    parts = [pieces[0], *(b if a is None else a for a, b in zip(own[1:], pieces[1:], strict=True))]
    if not parts[0]:
        raise UsageError("data: there are no documents to train on")
    text = DocumentText([document for part in parts for document in part], empty)
    text.cuts = [*accumulate(sum(map(len, part)) for part in parts)][:2]
    return text


class Datasets(DocumentCorpus):
    """Each row a document. parts: the dataset's own splits for train, validation and test; None for
    one that is cut from train by `split`; None alone: those of these names that it has. A part
    of the share 0 is left out."""

    def __init__(
        self,
        name: str,
        split: list[float],
        subset: str | None = None,
        revision: str | None = None,
        field: str = "text",
        parts: list[str | None] | None = None,
        shuffle: int | None = None,
        rows: Rows = "alone",
    ) -> None:
        super().__init__(split, shuffle, rows)
        self.source = DatasetSource(name, subset, revision, field)
        self.parts, self.found = required_parts(parts), called(name)

    def read(self, assets: Assets) -> DocumentText:
        found = self.source.find(assets, streamed=False)
        parts = choose_parts(self.source.where, self.parts, found.splits)
        documents: list[list[bytes] | None] = [
            None if part is None else within_limit(self._documents(found, part, share))
            for part, share in zip(parts, self.split, strict=True)
        ]
        text = split_by_parts(documents, self.split, self.shuffle)
        text.origin = [note for note in (found.note,) if note]
        return text

    def _documents(self, found: FoundSplits, part: str, share: float) -> Iterator[bytes]:
        if share:
            for text in self.source.texts(found.splits[part], part):
                yield text.encode()

    def moved_to(self, path: Path) -> Corpus:
        own = self.source
        return Datasets(
            str(path.absolute()), self.split, own.subset, None, own.field, self.parts, self.shuffle,
            self.rows,
        )  # fmt: skip


@dataclass(frozen=True)
class DatasetShards(TextShards):
    """Those of a split. rows: as a `datasets.IterableDataset`. files: its `FoundSplits.files`."""

    source: DatasetSource
    split: str
    rows: Any
    files: Sequence[Any]
    lanes: int
    buffer: int

    @cached_property
    def names(self) -> Sequence[str]:
        count = self.rows.num_shards
        return [f"{self.source.where} {self.split} shard {number + 1}" for number in range(count)]

    @property
    def bytes(self) -> int | None:
        sizes = [each[1] for each in self.files if not isinstance(each, str)]
        return sum(sizes) if len(sizes) == len(self.files) else None

    @cached_property
    def sha256(self) -> str:
        described = [self.split, len(self), *self.files]
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()

    def notes(self) -> list[str]:
        return [
            f"training reads {len(self):,} shards of the split {self.split} as it goes; what is "
            "split, and what a tokenizer learns from, are the first data.first_bytes alone"
        ]

    def documents(self, which: int) -> Iterator[Document]:
        shard = self.rows.shard(num_shards=len(self), index=which)
        for text in self.source.texts(shard, f"{self.split} shard {which + 1}"):
            yield Document(text)


class DatasetsStream(StreamedDocuments):
    """A split whose shards are read while a model trains. parts: as of `Datasets`; of a split that
    is held out, the first documents are, up to its share of first_bytes."""

    def __init__(
        self,
        name: str,
        split: list[float],
        subset: str | None = None,
        revision: str | None = None,
        field: str = "text",
        parts: list[str | None] | None = None,
        shuffle: int | None = None,
        rows: Rows = "packed",
        first_bytes: int = 10_000_000,
        lanes: int = 2,
        buffer: int = 1024,
    ) -> None:
        super().__init__(split, shuffle, rows, first_bytes, lanes, buffer)
        self.source = DatasetSource(name, subset, revision, field)
        self.parts, self.found = required_parts(parts), called(name)

    def read(self, assets: Assets) -> DocumentText:
        found = self.source.find(assets, streamed=True)
        train, *held_out = choose_parts(self.source.where, self.parts, found.splits)
        assert train is not None
        rows, files = found.splits[train], found.files.get(train, [])
        lanes = min(self.lanes, rows.num_shards)
        shards = DatasetShards(self.source, train, rows, files, lanes, self.buffer)
        own: list[list[bytes] | None] = [
            None if part is None else first(
                self.source.texts(found.splits[part], part), share * self.first_bytes
            )
            for part, share in zip(held_out, self.split[1:], strict=True)
        ]  # fmt: skip
        documents = first(shards.texts(), self.first_bytes)
        text = split_by_parts([documents, *own], self.split, self.shuffle)
        text.origin, text.shards = [note for note in (found.note,) if note], shards
        return text

    def moved_to(self, path: Path) -> Corpus:
        own = self.source
        return DatasetsStream(
            str(path.absolute()), self.split, own.subset, None, own.field, self.parts, self.shuffle,
            self.rows, self.first_bytes, self.lanes, self.buffer,
        )  # fmt: skip


def required_parts(parts: list[str | None] | None) -> list[str | None] | None:
    """Raises ValueError for what are no three."""
    if parts is not None and len(parts) != 3:
        raise ValueError(f"parts={show(parts)} should be three: of train, validation and test")
    names = [name for name in parts or () if name is not None]
    if len(set(names)) < len(names):
        raise ValueError(
            f"parts={show(parts)} has a split twice: what is held out is not trained on"
        )
    return parts
