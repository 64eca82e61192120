"""The loss by token frequency, and the passages with the highest loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.common.text import printable
from harness.evaluation.calibration import Floats, TokenStatistics
from harness.sampling.transcript import Transcript
from zoo_tokenizers import Tokenizer

CONTEXT = 60  # tokens shown before a passage


@dataclass(frozen=True)
class FrequencyBand:
    """The ids that occur from `least` to `most` times in train (None: no limit), and the split's
    tokens of these ids: their count, mean loss and accuracy."""

    least: int
    most: int | None
    ids: int
    tokens: int
    nats_per_token: float | None
    accuracy: float | None


def by_frequency(tokens: TokenStatistics, counts_V: NDArray[np.integer]) -> list[FrequencyBand]:
    """Bands by powers of ten, from the ids that train lacks to the commonest."""
    seen_N = counts_V[tokens.targets]
    powers = [10**power for power in range(len(str(int(counts_V.max()))))]
    bands = []
    for least, after in zip([0, *powers], [*powers, None], strict=True):
        top = np.inf if after is None else after
        inside_N = (seen_N >= least) & (seen_N < top)
        count = int(inside_N.sum())
        bands.append(
            FrequencyBand(
                least,
                None if after is None else after - 1,
                int(((counts_V >= least) & (counts_V < top)).sum()),
                count,
                float(tokens.nats[inside_N, 0].mean(dtype=np.float64)) if count else None,
                float(tokens.correct[inside_N].mean()) if count else None,
            )
        )
    return bands


def most_surprising(nats: Floats, length: int, most: int) -> list[int]:
    """The starts of the `most` passages of `length` tokens with the highest mean loss, the highest
    first, without overlap."""
    length = min(length, len(nats))
    sums = np.cumsum(np.concatenate([[0.0], nats.astype(np.float64)]))
    means = sums[length:] - sums[:-length]
    begins: list[int] = []
    while len(begins) < most and np.isfinite(means).any():
        worst = int(np.argmax(means))
        begins.append(worst)
        means[max(0, worst - length + 1) : worst + length] = -np.inf
    return begins


@dataclass(frozen=True)
class Mark:
    """A piece of text, its nats, and a note on each of its tokens."""

    text: str
    nats: float
    notes: list[str]


@dataclass(frozen=True)
class Passage:
    """Tokens of a split from index `begin` on. lead: the text before them."""

    begin: int
    nats_per_token: float
    lead: str
    marks: list[Mark]


def passages(
    tokens: TokenStatistics, first: int, tokenizer: Tokenizer, length: int, most: int
) -> list[Passage]:
    """The passages with the highest loss. first: the id before the scored tokens."""
    ids = np.concatenate([[first], tokens.targets.astype(np.int64)])
    found = []
    for begin in most_surprising(tokens.nats[:, 0], length, most):
        end = min(begin + length, len(tokens.targets))
        lead = ids[max(0, begin + 1 - CONTEXT) : begin + 1].tolist()
        found.append(
            Passage(
                begin + 1,
                float(tokens.nats[begin:end, 0].mean(dtype=np.float64)),
                Transcript(tokenizer, lead).text,
                list(_marks(tokens, lead, begin, end, tokenizer)),
            )
        )
    return found


def _marks(
    tokens: TokenStatistics, lead: list[int], begin: int, end: int, tokenizer: Tokenizer
) -> Iterator[Mark]:
    """Tokens that only together form a character share a mark."""
    transcript = Transcript(tokenizer, lead)
    nats, notes = 0.0, list[str]()
    for at in range(begin, end):
        text = transcript.add([int(tokens.targets[at])])
        if at == end - 1:
            text += transcript.flush()
        nats += float(tokens.nats[at, 0])
        notes.append(_note(tokens, at, tokenizer))
        if text:
            yield Mark(text, nats, notes)
            nats, notes = 0.0, []


def _note(tokens: TokenStatistics, at: int, tokenizer: Tokenizer) -> str:
    guesses = ", ".join(
        f"{_quoted(tokenizer, int(id_))} {probability:.2g}"
        for id_, probability in zip(tokens.guesses[at], tokens.probabilities[at], strict=True)
    )
    nats = float(tokens.nats[at, 0])
    target = _quoted(tokenizer, int(tokens.targets[at]))
    return f"{target}: {nats:.2f} nats, p = {np.exp(-nats):.2g}; likeliest were {guesses}"


def _quoted(tokenizer: Tokenizer, id_: int) -> str:
    """The token's piece, with unprintable characters escaped."""
    return repr(printable(tokenizer.pieces[id_].decode("utf-8", "surrogateescape")))
