"""Passages of a text in which one of two models is better than the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.evaluation.surprise import CONTEXT, most_surprising
from harness.sampling.transcript import Transcript
from zoo_tokenizers import Tokenizer

LENGTH = 160  # tokens


@dataclass(frozen=True)
class Piece:
    """A piece of text, and how many bits more the second model pays for it."""

    text: str
    bits: float


@dataclass(frozen=True)
class Contrast:
    """ahead: the model that is furthest ahead in it; None for the ordinary one. begin: the index of
    its first token. bits: of it, the second's more. lead: the text before it."""

    ahead: str | None
    begin: int
    bits: float
    lead: str
    pieces: tuple[Piece, ...]


def contrasts(
    difference_N: NDArray[np.float64],
    ids_M: NDArray[np.integer],
    tokenizer: Tokenizer,
    names: Sequence[str],
) -> list[Contrast]:
    """The passage in which each of the two is furthest ahead, and an ordinary one: the one whose
    difference is the median."""
    length = min(LENGTH, len(difference_N))
    (first,) = most_surprising(difference_N, length, 1)
    (second,) = most_surprising(-difference_N, length, 1)
    starts = np.arange(0, len(difference_N) - length + 1, length)
    sums = np.add.reduceat(difference_N, starts)
    ordinary = int(starts[np.argsort(sums, kind="stable")[len(sums) // 2]])
    chosen = {first: names[0], second: names[1], ordinary: None}
    return [
        _contrast(ahead, begin, length, difference_N, ids_M, tokenizer)
        for begin, ahead in chosen.items()
    ]


def _contrast(
    ahead: str | None,
    begin: int,
    length: int,
    difference_N: NDArray[np.float64],
    ids_M: NDArray[np.integer],
    tokenizer: Tokenizer,
) -> Contrast:
    lead = ids_M[max(0, begin + 1 - CONTEXT) : begin + 1].tolist()
    own_N = difference_N[begin : begin + length]
    ids = ids_M[begin + 1 : begin + 1 + length].tolist()
    pieces = tuple(_pieces(ids, own_N.tolist(), lead, tokenizer))
    return Contrast(ahead, begin + 1, float(own_N.sum()), Transcript(tokenizer, lead).text, pieces)


def _pieces(
    ids: Sequence[int], bits: Sequence[float], lead: Sequence[int], tokenizer: Tokenizer
) -> Iterator[Piece]:
    """Tokens that only together form a character share a piece."""
    transcript, spent = Transcript(tokenizer, list(lead)), 0.0
    for at, (id_, own) in enumerate(zip(ids, bits, strict=True), 1):
        text = transcript.add([id_])
        if at == len(ids):
            text += transcript.flush()
        spent += own
        if text:
            yield Piece(text, spent)
            spent = 0.0
