"""Shards are encoded by several processes into a folder of token ids (`TokenShards`)."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from harness.common.errors import RunFailure, UsageError
from harness.common.files import atomic_write, remove_leftovers, write_atomically
from harness.config.settings import Settings
from harness.data.assets import Assets
from harness.data.child import Child, in_child
from harness.data.corpus import Corpus
from harness.data.dataset import build_tokenizer, prepare
from harness.data.shards import FileShards
from harness.data.stream import Stream, first
from harness.data.token_shards import (
    FIRST,
    FORMAT,
    MANIFEST,
    TABLE,
    Encoded,
    digest_of,
    file_name,
    read_content,
    read_manifest,
)
from zoo_tokenizers import Tokenizer, TokenizerError, smallest_unsigned

LINE = 4096  # bytes at the end of a shard among which its line is found


@dataclass(frozen=True)
class Encoding:
    """Shards that are encoded into a folder. type: of the ids. key: the digest of all that
    determines what is written, as far as that is known without reading the shards."""

    shards: FileShards
    tokenizer: Tokenizer
    folder: Path
    type: str
    key: str

    def encode(self, which: int) -> Encoded:
        """Write a shard, unless it is there and whole. Raises UsageError for what can't be read or
        encoded."""
        source, path = self.shards.files[which], self.folder / file_name(which)
        if (found := self._finished(which)) is not None:
            return found
        digest, tokens, table = hashlib.sha256(), 0, bytearray()
        with atomic_write(path) as file:
            for number, document in enumerate(self.shards.documents(which), 1):
                try:
                    ids, unknown = document.encoded(self.tokenizer)
                except TokenizerError as error:
                    raise UsageError(f"{source} document {number}: {error}") from error
                content = ids.astype(self.type, copy=False).tobytes()
                digest.update(content)
                file.write(content)
                row = (len(ids), unknown, document.replaced, document.digest)
                table += np.array(row, TABLE).tobytes()
                tokens += len(ids)
            digest.update(table)
            file.write(table)
            size = self.shards.sizes[which]
            documents = len(table) // TABLE.itemsize
            done = Encoded(source.name, size, tokens, documents, digest.hexdigest())
            file.write(b"\n" + json.dumps([self.key, *done]).encode())
        return done

    def _finished(self, which: int) -> Encoded | None:
        """What an earlier call has written of the same shard; None if it has not, or if that is
        damaged."""
        path = self.folder / file_name(which)
        try:
            with path.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - LINE))
                key, *found = json.loads(file.read().rpartition(b"\n")[2])
            done = Encoded(*found)
            content = read_content(path, done.tokens, done.documents, self.type)
        except (OSError, ValueError, TypeError):
            return None
        same = (key, done.name, done.size) == (
            self.key, self.shards.files[which].name, self.shards.sizes[which],
        )  # fmt: skip
        whole = content is not None and hashlib.sha256(content).hexdigest() == done.sha256
        return done if same and whole else None


def write_tokens(settings: Settings, folder: Path, workers: int) -> str:
    """Encode the stream of the settings into a folder; returns a line about it. A folder that an
    earlier call did not finish is gone on with.

    Raises UsageError for another corpus, and for a folder that holds something else.
    """
    corpus = settings.build("data", Corpus)
    if not isinstance(corpus, Stream):
        raise UsageError(f"--out is for data=stream: data={settings.names.data} is encoded whole")
    assets = Assets.of(settings.assets, settings.cache)
    dataset = prepare(corpus, build_tokenizer(settings), assets)
    shards, tokenizer = dataset.shards, dataset.tokenizer
    if not isinstance(shards, FileShards):
        raise UsageError(f"data.path={corpus.path} is encoded already")
    documents = first(shards.texts(), corpus.first_bytes)
    lines = (json.dumps({"text": text.decode()}) + "\n" for text in documents)
    beginning = "".join(lines).encode()
    kind = np.dtype(smallest_unsigned(tokenizer.vocab_size)).newbyteorder("<")
    meta: dict[str, Any] = {
        "format": FORMAT,
        "source": shards.sha256,
        "reading": corpus.reading,
        "tokenizer": tokenizer.digest,
        "type": kind.str,
        "first_documents": {
            "sha256": hashlib.sha256(beginning).hexdigest(),
            "all": sum(map(len, documents)) < corpus.first_bytes,
        },
    }
    _require_own(folder, meta)
    write_atomically(folder / FIRST, beginning)
    if not (folder / MANIFEST).exists():
        _write_manifest(folder, meta | {"shards": None})
    encoding = Encoding(shards, tokenizer, folder, kind.str, digest_of(meta))
    try:
        found = dict(_encoded(encoding, min(workers, len(shards))))
    finally:
        remove_leftovers(folder)
    ordered = [found[which] for which in range(len(shards))]
    _write_manifest(folder, meta | {"shards": ordered})
    tokens, count = (
        sum(getattr(each, name) for each in ordered) for name in ("tokens", "documents")
    )
    return (
        f"{folder}: {tokens:,} tokens ({kind.name}) of {count:,} documents in "
        f"{len(ordered):,} shards; train with data=stream data.path={folder} and the same settings"
    )


def _require_own(folder: Path, meta: dict[str, Any]) -> None:
    """Raises UsageError for a folder that holds what this command has not written."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(f"--out {folder} is no folder")
    remove_leftovers(folder)
    if (folder / MANIFEST).exists():
        before = read_manifest(folder)
        changed = [key for key, value in meta.items() if before.get(key) != value]
        if changed:
            raise UsageError(
                f"--out {folder} holds token shards of other {', '.join(changed)}: choose another "
                "folder"
            )
        return
    for name in os.listdir(folder):
        if name != FIRST and not name.endswith(".tokens"):
            raise UsageError(f"--out {folder} holds other files, such as {name!r}")


def _write_manifest(folder: Path, meta: dict[str, Any]) -> None:
    content = json.dumps(meta | {"sha256": digest_of(meta)}).encode()
    write_atomically(folder / MANIFEST, content)


def _encoded(encoding: Encoding, workers: int) -> Iterator[tuple[int, Encoded]]:
    """Each shard by its number, in the order in which they are done: by one process here, or by
    several of their own."""
    numbers = iter(range(len(encoding.shards)))
    with ExitStack() as stack:
        bar = tqdm(total=len(encoding.shards), unit=" shards", disable=not sys.stderr.isatty())
        stack.enter_context(closing(bar))
        if workers == 1:
            for which in numbers:
                yield which, encoding.encode(which)
                bar.update()
            return
        busy = dict[Connection, tuple[Child, int]]()
        for which in islice(numbers, workers):
            child = Child("harness.data.write_tokens", encoding)
            stack.callback(child.close, 0)
            child.send(which)
            busy[child.connection] = child, which
        while busy:
            for connection in wait([*busy]):
                assert isinstance(connection, Connection)
                child, which = busy.pop(connection)
                yield which, child.receive()
                bar.update()
                if (following := next(numbers, None)) is not None:
                    child.send(following)
                    busy[connection] = child, following


def _encode(connection: Connection) -> None:
    encoding: Encoding = connection.recv()
    while True:
        try:
            connection.send(encoding.encode(connection.recv()))
        except (UsageError, RunFailure) as error:
            connection.send(error)


if __name__ == "__main__":
    in_child(_encode)
