"""The cache of token ids and learnt vocabularies. Ids are encoded once and then memory-mapped.

A cache folder is named by a digest of all that determines its content, so two processes can write
it at the same time, and a damaged file is written again.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.common.errors import RunFailure, UsageError
from harness.common.files import (
    atomic_write,
    remove_leftovers,
    sha256_of,
    write_atomically,
    writing,
)
from harness.common.interrupt import ending_at_once
from harness.data.corpus import Span, Text
from zoo_tokenizers import NotUnicode, Tokenizer, TokenizerError, in_document, smallest_unsigned

FORMAT = 2  # version of the cache; increase it when the encoding changes
PARTS = ("train", "val", "test")
UNICODE_SCALARS = 0x110000 - 0x800  # all code points except surrogates
SAMPLED_CHARACTERS = 1 << 22  # read to measure the loss of a lossy tokenizer

Ids = NDArray[np.unsignedinteger]


@dataclass(frozen=True, eq=False)
class Documents:
    """Where the documents lie in the ids of a split: one end marker before, between and after them.

    borders: (D + 1,), the places of the markers. Document d is predicted from the marker before it
    on, the marker after it last: by the inputs ids[borders[d] : borders[d + 1]].
    """

    borders: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.borders) - 1

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """(D,): the predictions of each, its end marker included."""
        return np.diff(self.borders)


@dataclass(frozen=True)
class Split:
    """One encoded part of a corpus.

    bytes: length of its text. unknown: characters that the vocabulary lacks, with their counts;
    the ids leave them out. documents: None for one long text. share: of the ids or documents of
    the whole split, from its beginning.
    """

    ids: Ids
    bytes: int
    unknown: dict[str, int]
    documents: Documents | None = field(default=None, repr=False)
    share: float = 1.0

    def beginning(self, share: float, token_bytes: NDArray[np.integer]) -> Split:
        """Its first ids, or whole documents. token_bytes: (V,), the length of each token's text.

        Raises UsageError if its vocabulary lacks characters, since nothing says where they were.
        """
        if share == 1:
            return self
        if self.unknown:
            raise UsageError(
                "eval.part: validation has characters that are not in train, so that a part of it "
                "has no exact score; take eval.part=1"
            )
        count, documents = math.ceil(share * len(self.ids)), self.documents
        if documents is not None:
            documents = Documents(documents.borders[: math.ceil(share * len(documents)) + 1])
            count = int(documents.borders[-1]) + 1
        ids = self.ids[:count]
        return Split(ids, int(token_bytes[ids].sum(dtype=np.int64)), {}, documents, share)

    @property
    def unknown_nats(self) -> float:
        """The cost in nats of the unknown characters, so that the metric covers every byte.

        It is a two-part code. The receiver decodes the ids, then inserts each character: position
        and code point, both uniform. Both counts are assumed to be known, as is the number of
        tokens in any score. It is an upper bound: ascending positions would cost ln n! less.
        """
        count = sum(self.unknown.values())
        return count * (math.log(len(self.ids) + count) + math.log(UNICODE_SCALARS))


@dataclass(frozen=True)
class RoundTripLoss:
    """How many of a text's first `characters` characters decode(encode(line)) changes. examples:
    up to three lines, before and after."""

    characters: int
    changed: int
    examples: list[list[str]]


def encode_parts(
    text: Text, whole: Span, parts: list[Span], tokenizer: Tokenizer, cache: Path
) -> tuple[list[Split], RoundTripLoss | None]:
    """The parts, each encoded by itself and memory-mapped, and the loss of a lossy tokenizer.

    Raises TokenizerError for text that the tokenizer can't encode, and RunFailure if the text is no
    longer the one that the spans are of.
    """
    if text.of_documents != (tokenizer.marker is not None):
        kinds = "documents", "one long text"
        own, given = kinds if tokenizer.marker is not None else reversed(kinds)
        raise TokenizerError(f"the tokenizer is one of {own}, and this is {given}")
    for folder in (cache / "assets", *cache.glob("encoded/*"), *cache.glob("learnt/*")):
        remove_leftovers(folder)
    cuts = [(part.start, part.stop) for part in parts]
    name = hashlib.sha256(f"{FORMAT} {whole.sha256} {cuts} {tokenizer.digest}".encode()).hexdigest()
    folder = cache / "encoded" / name
    found = _read(folder, tokenizer.marker)
    if found is None:
        _write(folder, text, whole, parts, tokenizer)
        found = _read(folder, tokenizer.marker)
    if found is None:
        raise RunFailure(f"{folder} differs from what was written: check the disk")
    return found


def fit_tokenizer(tokenizer: Tokenizer, text: Text, span: Span, cache: Path) -> None:
    """Fit the tokenizer to a span of the text, or load what an equal tokenizer learnt from it."""
    if tokenizer.recipe is None:
        with text.unchanged(span) as strings, ending_at_once():
            tokenizer.fit(strings)
        return
    kind = f"{type(tokenizer).__module__}.{type(tokenizer).__qualname__}"
    key = f"{FORMAT} {kind} {tokenizer.recipe} {span.sha256}"
    folder = cache / "learnt" / hashlib.sha256(key.encode()).hexdigest()
    try:
        tokenizer.load(folder)
    except TokenizerError:  # missing or damaged
        with text.unchanged(span) as strings, ending_at_once():
            tokenizer.fit(strings)
        with writing(folder):
            tokenizer.save(folder, write_atomically)


def _write(folder: Path, text: Text, whole: Span, parts: list[Span], tokenizer: Tokenizer) -> None:
    described = {}
    for name, part in zip(PARTS, parts, strict=True):
        with (
            atomic_write(folder / f"{name}.ids") as file,
            text.unchanged(part) as strings,
        ):
            described[name] = _encode(file, strings, part, tokenizer)
    lost = None
    if not tokenizer.lossless:
        with text.unchanged(whole) as strings:
            lost = asdict(_measure_loss(strings, tokenizer))
    kind = np.dtype(smallest_unsigned(tokenizer.vocab_size)).name
    meta = {"type": kind, "parts": described, "lost": lost}
    content = json.dumps(meta | {"sha256": _digest(meta)}).encode()
    write_atomically(folder / "meta.json", content)


def _encode(file: Any, strings: Iterable[str], part: Span, tokenizer: Tokenizer) -> dict[str, Any]:
    """Write the ids of one part, whose text is `strings`; returns its entry in meta.json."""
    kind = np.dtype(smallest_unsigned(tokenizer.vocab_size))
    own, token_bytes = tokenizer.of_text, tokenizer.token_bytes
    marker = b"" if tokenizer.marker is None else np.array(tokenizer.marker, kind).tobytes()
    digest, unknown, at = hashlib.sha256(marker), Counter[str](), part.start
    file.write(marker)
    for piece in tokenizer.rechunk(strings):
        try:
            ids, lacking = tokenizer.encode_known(piece)
        except NotUnicode as error:
            if tokenizer.marker is not None:
                raise in_document(error, piece) from error
            raise NotUnicode(error.byte, at + error.offset) from error
        if len(ids) and int(ids.max()) >= own.vocab_size:
            raise TokenizerError(
                f"{type(own).__name__} returned id {ids.max()}, but its vocabulary has only "
                f"{own.vocab_size} ids"
            )
        size = len(piece.encode("utf-8", "surrogateescape"))
        missing = sum(len(character.encode()) * n for character, n in lacking.items())
        if tokenizer.lossless and int(token_bytes[ids].sum()) + missing != size:
            raise TokenizerError(
                f"{type(own).__name__} is declared lossless, but its tokens from byte {at} "
                f"on do not cover the {size} bytes of the text"
            )
        content = ids.astype(kind, copy=False).tobytes() + marker
        digest.update(content)
        file.write(content)
        unknown += lacking
        at += size
    return {"bytes": part.stop - part.start, "unknown": unknown, "sha256": digest.hexdigest()}


def _read(folder: Path, marker: int | None) -> tuple[list[Split], RoundTripLoss | None] | None:
    """What `_write` wrote; None if it is missing or damaged."""
    try:
        meta = json.loads((folder / "meta.json").read_text())
        if meta.pop("sha256") != _digest(meta):
            return None
        splits = []
        for name in PARTS:
            described, path = meta["parts"][name], folder / f"{name}.ids"
            if sha256_of(path) != described["sha256"]:
                return None
            empty = path.stat().st_size == 0  # can't be mapped
            ids = np.empty(0, meta["type"]) if empty else np.memmap(path, meta["type"], mode="r")
            # Indexing a plain view is several times faster than indexing np.memmap.
            ids = ids.view(np.ndarray)
            documents = None if marker is None else Documents(np.flatnonzero(ids == marker))
            splits.append(Split(ids, described["bytes"], described["unknown"], documents))
        return splits, RoundTripLoss(**meta["lost"]) if meta["lost"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _digest(meta: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta).encode()).hexdigest()


def _measure_loss(strings: Iterable[str], tokenizer: Tokenizer) -> RoundTripLoss:
    characters, changed, examples = 0, 0, dict[str, str]()
    for piece in strings:
        for line in piece.splitlines(keepends=True):
            back = tokenizer.decode(tokenizer.encode(line))
            changed += (Counter(line) - Counter(back)).total()
            if back != line and len(examples) < 3:
                examples.setdefault(line, back)
        characters += len(piece)
        if characters >= SAMPLED_CHARACTERS:
            break
    return RoundTripLoss(characters, changed, [[line, back] for line, back in examples.items()])
