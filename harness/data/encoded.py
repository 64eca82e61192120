"""The cache of token ids and learnt vocabularies. Ids are encoded once and then memory-mapped.

A cache folder is named by a digest of all that determines its content, so two processes can write
it at the same time, and a damaged file is written again.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
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
from harness.data.corpus import Span, Task, Text
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
    on, the marker after it last: by the inputs ids[borders[d] : borders[d + 1]]. scored: (N - 1,),
    which predictions count; None: all. task: whose examples they are, if they are any's.
    weights: (D,), of the train texts of a mix, which have no markers and begin at the borders: the
    share of the rows that each gives.
    """

    borders: NDArray[np.int64]
    scored: NDArray[np.bool_] | None = None
    task: Task | None = None
    weights: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.borders) - 1

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """(D,): the predictions of each, its end marker included."""
        return np.diff(self.borders)


@dataclass(frozen=True)
class Split:
    """One encoded part of a corpus.

    bytes: length of its text; 0 where the data are ids. unknown: characters that the vocabulary
    lacks, with their counts; the ids leave them out. documents: None for one long text. share: of
    the ids or documents of the whole split, from its beginning. texts: of a mix, the part of each
    corpus by its name, one after the other in `ids`; each is scored by itself.
    """

    ids: Ids
    bytes: int
    unknown: dict[str, int]
    documents: Documents | None = field(default=None, repr=False)
    share: float = 1.0
    texts: Mapping[str, Split] = field(default_factory=dict, repr=False)

    @property
    def alone(self) -> Mapping[str, Split]:
        """What is scored by itself: each text of a mix, or the whole."""
        return self.texts or {"": self}

    def beginning(self, share: float, token_bytes: NDArray[np.integer]) -> Split:
        """Its first ids, or whole documents. token_bytes: (V,), the length of each token's text.

        Raises UsageError if its vocabulary lacks characters, since nothing says where they were.
        """
        if share == 1:
            return self
        if self.texts:
            raise UsageError("eval.part: a mix is scored on all of its texts; take eval.part=1")
        if self.unknown:
            raise UsageError(
                "eval.part: validation has characters that are not in train, so that a part of it "
                "has no exact score; take eval.part=1"
            )
        count, documents = math.ceil(share * len(self.ids)), self.documents
        if documents is not None:
            borders = documents.borders[: math.ceil(share * len(documents)) + 1]
            count = int(borders[-1]) + 1
            scored = None if documents.scored is None else documents.scored[: count - 1]
            documents = replace(documents, borders=borders, scored=scored)
        ids = self.ids[:count]
        return Split(ids, int(token_bytes[ids].sum(dtype=np.int64)), {}, documents, share)

    @property
    def unknown_nats(self) -> float:
        """The cost in nats of the unknown characters, so that the metric covers every byte.

        It is a two-part code. The receiver decodes the ids, then inserts each character: position
        and code point, both uniform. Both counts are assumed to be known, as is the number of
        tokens in any score. It is an upper bound: ascending positions would cost ln n! less.
        """
        if self.texts:
            return sum(text.unknown_nats for text in self.texts.values())
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
    found = _read(folder, tokenizer.marker, text.names)
    if found is None:
        _write(folder, text, whole, parts, tokenizer)
        found = _read(folder, tokenizer.marker, text.names)
    if found is None:
        raise RunFailure(f"{folder} differs from what was written: check the disk")
    splits, lost = found
    return [_marked(text, *each) for each in zip(parts, splits, strict=True)], lost


def _marked(text: Text, part: Span, split: Split) -> Split:
    """The split with what of it counts."""
    if split.documents is None or text.task is None:
        return split
    scored = text.scored(part)
    return replace(split, documents=replace(split.documents, scored=scored, task=text.task))


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
    described = {
        name: _write_part(folder / f"{name}.ids", text, part, tokenizer)
        for name, part in zip(PARTS, parts, strict=True)
    }
    lost = None
    if not (tokenizer.lossless or tokenizer.of_ids):
        with text.unchanged(whole) as strings:
            lost = asdict(_measure_loss(strings, tokenizer))
    kind = np.dtype(smallest_unsigned(tokenizer.vocab_size)).name
    meta = {"type": kind, "parts": described, "lost": lost}
    content = json.dumps(meta | {"sha256": _digest(meta)}).encode()
    write_atomically(folder / "meta.json", content)


def _write_part(path: Path, text: Text, part: Span, tokenizer: Tokenizer) -> dict[str, Any]:
    """Write the ids of one part; returns its entry in meta.json."""
    digest, texts = hashlib.sha256(), []
    with atomic_write(path) as file:

        def write(content: bytes) -> None:
            digest.update(content)
            file.write(content)

        for each in part.texts or (part,):  # of a mix no token reaches from one into the next
            with text.unchanged(each) as strings:
                texts.append(_encode(write, strings, each, tokenizer))
    own = {"texts": texts} if part.texts else texts[0]
    return own | {"sha256": digest.hexdigest()}


def _encode(
    write: Callable[[bytes], None], strings: Iterable[str], part: Span, tokenizer: Tokenizer
) -> dict[str, Any]:
    """Write the ids of one text, which is `strings`; returns what meta.json says of it."""
    kind = np.dtype(smallest_unsigned(tokenizer.vocab_size))
    own, token_bytes = tokenizer.of_text, tokenizer.token_bytes
    marker = b"" if tokenizer.marker is None else np.array(tokenizer.marker, kind).tobytes()
    unknown, at, tokens = Counter[str](), part.start, 0
    write(marker)
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
        write(ids.astype(kind, copy=False).tobytes() + marker)
        unknown += lacking
        at += size
        tokens += len(ids)
    own_bytes = 0 if tokenizer.of_ids else part.stop - part.start
    return {"bytes": own_bytes, "unknown": unknown, "tokens": tokens}


def _read(
    folder: Path, marker: int | None, names: Sequence[str]
) -> tuple[list[Split], RoundTripLoss | None] | None:
    """What `_write` wrote; None if it is missing or damaged. names: of the texts of a mix."""
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
            if names:
                splits.append(_mixed(ids, dict(zip(names, described["texts"], strict=True))))
                continue
            documents = None if marker is None else Documents(np.flatnonzero(ids == marker))
            splits.append(Split(ids, described["bytes"], described["unknown"], documents))
        return splits, RoundTripLoss(**meta["lost"]) if meta["lost"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _mixed(ids: Ids, described: Mapping[str, dict[str, Any]]) -> Split:
    """One part of a mix."""
    texts, unknown, at = dict[str, Split](), Counter[str](), 0
    for name, own in described.items():
        end = at + own["tokens"]
        texts[name] = Split(ids[at:end], own["bytes"], own["unknown"])
        unknown, at = unknown + Counter(own["unknown"]), end
    return Split(ids, sum(text.bytes for text in texts.values()), dict(unknown), texts=texts)


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
