"""The loss of every token, at its place in the text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.common.files import atomic_write
from harness.data.alone import LoneText
from harness.data.documents import DocumentText
from harness.evaluation.score import Score
from zoo_tokenizers import Tokenizer

COLUMNS = ("text", "byte", "bytes", "id", "token", "nats")
UNKNOWN = -1  # in place of an id


class PlacedTokens(NamedTuple):
    """A scored text, (N,) each: its tokens and, in their places, the characters that the vocabulary
    lacks, as UNKNOWN. sizes: in bytes. nats: of a first token 0. counts: whether they are in the
    score; a first token, which nothing predicts, is not, nor what an example of a task does not ask
    for."""

    ids: NDArray[np.int64]
    sizes: NDArray[np.int64]
    nats: NDArray[np.floating]
    counts: NDArray[np.bool_]


def tokens_in_order(part: LoneText, tokenizer: Tokenizer, score: Score) -> PlacedTokens:
    """The tokens that a score is the sum of. Raises RunFailure if the text is no longer the one
    that was scored."""
    split = part.split
    ids = np.asarray(split.ids).astype(np.int64)
    sizes = tokenizer.token_bytes[ids]
    nats = np.concatenate(([0.0], score.token_nats))
    counts = np.ones(len(ids), dtype=np.bool_)
    counts[np.cumsum([0, *(len(text.ids) for text in split.alone.values())])[:-1]] = False
    if split.documents is not None and split.documents.scored is not None:
        counts[1:] &= split.documents.scored
    if not split.unknown:
        return PlacedTokens(ids, sizes, nats, counts)
    at, own = unknown_places(part)
    known_bytes_before = at - np.concatenate(([0], np.cumsum(own)[:-1]))
    # Where tokens have no known bytes, these characters come last.
    index = (
        np.searchsorted(np.cumsum(sizes) - sizes, known_bytes_before)
        if tokenizer.lossless
        else np.full(len(own), len(ids))
    )
    if split.documents is not None and isinstance(part.text, DocumentText):
        # The marker that begins a document begins at the same byte, and comes before them.
        ends_D = part.text.ends_in(part.span.start, part.span.stop) - part.span.start
        document = np.searchsorted(ends_D, at, side="right")
        index = np.maximum(index, split.documents.borders[document] + 1)
    return PlacedTokens(
        np.insert(ids, index, UNKNOWN),
        np.insert(sizes, index, own),
        np.insert(nats, index, split.unknown_nats / len(own)),
        np.insert(counts, index, True),
    )


def unknown_places(part: LoneText) -> NDArray[np.int64]:
    """(2, N): where the characters that the vocabulary lacks are, and how many bytes each has."""
    with part.text.unchanged(part.span) as pieces:
        return np.array(list(unknown_characters(pieces, part.split.unknown))).T


def unknown_characters(pieces: Iterable[str], unknown: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Yield (byte offset, bytes) of every occurrence of these characters in a text."""
    wanted = re.compile("[" + re.escape("".join(unknown)) + "]")
    at = 0
    for piece in pieces:
        last = 0
        for match in wanted.finditer(piece):
            at += _bytes(piece[last : match.start()])
            yield at, _bytes(match[0])
            at += _bytes(match[0])
            last = match.end()
        at += _bytes(piece[last:])


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogateescape"))


def write_tokens(
    target: Path, scored: Mapping[str, tuple[LoneText, Score]], tokenizer: Tokenizer
) -> None:
    """A line for each token, columns divided by tabs. The nats of a text add up to its score.

    byte: where the token begins in its text; empty, like bytes, for a lossy tokenizer. id: empty
    for a character that the vocabulary lacks. token: a Python literal in single quotes. nats: in
    full precision; empty for a first token, which nothing predicts, and for what does not count in
    an example of a task. Raises RunFailure.
    """

    @cache
    def piece(id_: int) -> str:
        return _literal(tokenizer.pieces[id_])

    with atomic_write(target) as file:
        file.write("\t".join(COLUMNS).encode() + b"\n")
        for name, (part, score) in scored.items():
            tokens = tokens_in_order(part, tokenizer, score)
            starts = np.cumsum(tokens.sizes) - tokens.sizes
            for id_, size, nats, counts, start in zip(*tokens, starts, strict=True):
                where = (str(start), str(size)) if tokenizer.lossless else ("", "")
                begin = part.span.start + int(start)
                if id_ != UNKNOWN:
                    token = piece(int(id_))
                else:
                    token = _literal(part.text.read(begin, begin + int(size))) if where[0] else ""
                cells = (
                    name, *where, "" if id_ == UNKNOWN else str(id_), token,
                    str(nats) if counts else "",
                )  # fmt: skip
                file.write("\t".join(cells).encode() + b"\n")


def _literal(piece: bytes) -> str:
    """'…', or b'…' for what is not UTF-8. No spreadsheet takes it for a formula."""
    try:
        value: str | bytes = piece.decode()
    except UnicodeDecodeError:
        value = piece
    # A literal that holds a double quote is written in single ones.
    quoted = repr(value + '"') if isinstance(value, str) else repr(value + b'"')
    return f"{quoted[:-2]}'"
