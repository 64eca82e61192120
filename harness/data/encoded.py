"""Token ids on disk: encoded once in a stream, memory-mapped ever after, and learnt once.

A folder of the cache is named by all that decides its content, so that whoever fills it writes the
same: two processes may do so at once, and a damaged file is simply written again.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.common.errors import RunFailure
from harness.common.files import atomic_write, sha256_of
from harness.data.corpus import Text
from zoo_tokenizers import NotUnicode, Tokenizer, TokenizerError, smallest_unsigned

FORMAT = 2  # of the cache; a change of what is encoded how must raise it
PARTS = ("train", "val", "test")
UNICODE_SCALARS = 0x110000 - 0x800  # all code points but the surrogates
SAMPLED_CHARACTERS = 1 << 22  # how much of a text is looked at to see what a lossy tokenizer loses

Ids = NDArray[np.unsignedinteger]


@dataclass(frozen=True)
class Split:
    """One encoded part of a corpus.

    bytes: of its whole text. unknown: the characters that the vocabulary lacks, and how often they
    occur; they are not among the ids.
    """

    ids: Ids
    bytes: int
    unknown: dict[str, int]

    @property
    def unknown_nats(self) -> float:
        """What it costs to send the unknown characters beside the ids, so that the metric still
        covers every byte: for each its place in the text and its code point, both uniform.

        It is a code in two parts: the receiver decodes the ids, then puts each character in its
        place. That the lengths of both lists are known is taken for granted, as it is of the number
        of tokens in any score. (Places in ascending order would cost ln n! less: this is an upper
        bound.)
        """
        count = sum(self.unknown.values())
        return count * (math.log(len(self.ids) + count) + math.log(UNICODE_SCALARS))


@dataclass(frozen=True)
class Lost:
    """What decode(encode(text)) does not give back of a text's first `characters` characters, line
    by line. changed: how many of them; examples: three lines, before and after."""

    characters: int
    changed: int
    examples: list[list[str]]


def encode_parts(
    text: Text, parts: list[tuple[int, int]], digest: str, tokenizer: Tokenizer, cache: Path
) -> tuple[list[Split], Lost | None]:
    """Each part encoded by itself and memory-mapped, and what is lost if the tokenizer is lossy.

    digest: of the text. Raises TokenizerError for text that the tokenizer can't take.
    """
    name = hashlib.sha256(f"{FORMAT} {digest} {parts} {tokenizer.digest}".encode()).hexdigest()
    folder = cache / "encoded" / name
    found = _read(folder)
    if found is None:
        _write(folder, text, parts, tokenizer)
        found = _read(folder)
    if found is None:
        raise RunFailure(f"{folder} does not read back as it was written: check the disk")
    return found


def learn(tokenizer: Tokenizer, text: Text, train: tuple[int, int], cache: Path) -> None:
    """Let the tokenizer learn what it learns, from the train split alone unless it leaks; or take
    what it learnt before from the same text by the same recipe."""
    start, stop = (0, text.size) if tokenizer.leaks else train
    if tokenizer.recipe is None:
        tokenizer.fit(text.strings(start, stop))
        return
    kind = f"{type(tokenizer).__module__}.{type(tokenizer).__qualname__}"
    key = f"{FORMAT} {kind} {tokenizer.recipe} {text.digest(start, stop)}"
    folder = cache / "learnt" / hashlib.sha256(key.encode()).hexdigest()
    try:
        tokenizer.load(folder)
    except TokenizerError:  # not there, or not whole
        tokenizer.fit(text.strings(start, stop))
        text.require_unchanged()
        try:
            tokenizer.save(folder)
        except OSError as error:
            raise RunFailure(f"{folder} can't be written: {error.strerror}") from error


def _write(folder: Path, text: Text, parts: list[tuple[int, int]], tokenizer: Tokenizer) -> None:
    described = {}
    for name, (start, stop) in zip(PARTS, parts, strict=True):
        with atomic_write(folder / f"{name}.ids") as file:
            described[name] = _encode(file, text, start, stop, tokenizer)
    text.require_unchanged()
    lost = None if tokenizer.lossless else asdict(_what_is_lost(text, tokenizer))
    kind = np.dtype(smallest_unsigned(tokenizer.vocab_size)).name
    meta = {"type": kind, "parts": described, "lost": lost}
    with atomic_write(folder / "meta.json") as file:
        file.write(json.dumps(meta | {"sha256": _digest(meta)}).encode())


def _encode(file: Any, text: Text, start: int, stop: int, tokenizer: Tokenizer) -> dict[str, Any]:
    """Write the ids of one part; its description for meta.json."""
    kind = np.dtype(smallest_unsigned(tokenizer.vocab_size))
    token_bytes = tokenizer.token_bytes
    digest, unknown, at = hashlib.sha256(), Counter[str](), start
    for piece in tokenizer.recut(text.strings(start, stop)):
        try:
            ids, lacking = tokenizer.encode_known(piece)
        except NotUnicode as error:
            raise NotUnicode(error.byte, at + error.offset) from error
        if len(ids) and int(ids.max()) >= tokenizer.vocab_size:
            raise TokenizerError(
                f"{type(tokenizer).__name__} made id {ids.max()}, beyond its vocabulary of "
                f"{tokenizer.vocab_size}"
            )
        size = len(piece.encode("utf-8", "surrogateescape"))
        missing = sum(len(character.encode()) * n for character, n in lacking.items())
        if tokenizer.lossless and int(token_bytes[ids].sum()) + missing != size:
            raise TokenizerError(
                f"{type(tokenizer).__name__} calls itself lossless, but its tokens from byte {at} "
                f"on do not stand for the {size} bytes of the text"
            )
        content = ids.astype(kind, copy=False).tobytes()
        digest.update(content)
        file.write(content)
        unknown += lacking
        at += size
    return {"bytes": stop - start, "unknown": unknown, "sha256": digest.hexdigest()}


def _read(folder: Path) -> tuple[list[Split], Lost | None] | None:
    """What `_write` wrote, or None if it is not there whole."""
    try:
        meta = json.loads((folder / "meta.json").read_text())
        if meta.pop("sha256") != _digest(meta):
            return None
        splits = []
        for name in PARTS:
            described, path = meta["parts"][name], folder / f"{name}.ids"
            if sha256_of(path) != described["sha256"]:
                return None
            empty = path.stat().st_size == 0  # which can't be mapped
            ids = np.empty(0, meta["type"]) if empty else np.memmap(path, meta["type"], mode="r")
            # A plain view of it: numpy's memmap costs several times as much to index.
            splits.append(Split(ids.view(np.ndarray), described["bytes"], described["unknown"]))
        return splits, Lost(**meta["lost"]) if meta["lost"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _digest(meta: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta).encode()).hexdigest()


def _what_is_lost(text: Text, tokenizer: Tokenizer) -> Lost:
    characters, changed, examples = 0, 0, dict[str, str]()
    for piece in text.strings(0, text.size):
        for line in piece.splitlines(keepends=True):
            back = tokenizer.decode(tokenizer.encode(line))
            changed += (Counter(line) - Counter(back)).total()
            if back != line and len(examples) < 3:
                examples.setdefault(line, back)
        characters += len(piece)
        if characters >= SAMPLED_CHARACTERS:
            break
    return Lost(characters, changed, [[line, back] for line, back in examples.items()])
