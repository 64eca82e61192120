"""What surprises a model: by how often train shows a token, and the passages it expects least."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.calibration import Floats, Observed
from harness.transcript import Transcript
from harness.values import printable
from zoo_tokenizers import Tokenizer

LEAD = 60  # tokens shown before a passage


@dataclass(frozen=True)
class Band:
    """The tokens that train shows from `least` to `most` times (None: any number): how many such
    ids there are, how many tokens of the split they make up, and what these cost in the mean."""

    least: int
    most: int | None
    ids: int
    tokens: int
    nats_per_token: float | None
    accuracy: float | None


def by_frequency(observed: Observed, counts_V: NDArray[np.integer]) -> list[Band]:
    """From the tokens that train never shows to the commonest, by powers of ten."""
    seen_N = counts_V[observed.targets]
    powers = [10**power for power in range(len(str(int(counts_V.max()))))]
    bands = []
    for least, after in zip([0, *powers], [*powers, None], strict=True):
        top = np.inf if after is None else after
        inside_N = (seen_N >= least) & (seen_N < top)
        tokens = int(inside_N.sum())
        bands.append(
            Band(
                least,
                None if after is None else after - 1,
                int(((counts_V >= least) & (counts_V < top)).sum()),
                tokens,
                float(observed.nats[inside_N, 0].mean(dtype=np.float64)) if tokens else None,
                float(observed.correct[inside_N].mean()) if tokens else None,
            )
        )
    return bands


def most_surprising(nats: Floats, length: int, most: int) -> list[int]:
    """Where the passages of `length` tokens with the highest mean loss begin, the worst first; no
    two share a token."""
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
    """A piece of text that can be shown, its nats, and a line on each of its tokens."""

    text: str
    nats: float
    notes: list[str]


@dataclass(frozen=True)
class Passage:
    """Tokens of a split from the one at `begin` on. lead: the text before them."""

    begin: int
    nats_per_token: float
    lead: str
    marks: list[Mark]


def passages(
    observed: Observed, first: int, tokenizer: Tokenizer, length: int, most: int
) -> list[Passage]:
    """The most surprising ones. first: the id before all that was observed."""
    ids = np.concatenate([[first], observed.targets.astype(np.int64)])
    found = []
    for begin in most_surprising(observed.nats[:, 0], length, most):
        end = min(begin + length, len(observed.targets))
        lead = ids[max(0, begin + 1 - LEAD) : begin + 1].tolist()
        found.append(
            Passage(
                begin + 1,
                float(observed.nats[begin:end, 0].mean(dtype=np.float64)),
                Transcript(tokenizer, lead).text,
                list(_marks(observed, lead, begin, end, tokenizer)),
            )
        )
    return found


def _marks(
    observed: Observed, lead: list[int], begin: int, end: int, tokenizer: Tokenizer
) -> Iterator[Mark]:
    """Tokens that make up a character only together are one mark."""
    transcript = Transcript(tokenizer, lead)
    nats, notes = 0.0, list[str]()
    for at in range(begin, end):
        text = transcript.take([int(observed.targets[at])])
        if at == end - 1:
            text += transcript.rest()
        nats += float(observed.nats[at, 0])
        notes.append(_note(observed, at, tokenizer))
        if text:
            yield Mark(text, nats, notes)
            nats, notes = 0.0, []


def _note(observed: Observed, at: int, tokenizer: Tokenizer) -> str:
    guesses = ", ".join(
        f"{_quoted(tokenizer, int(id_))} {probability:.2g}"
        for id_, probability in zip(observed.guesses[at], observed.probabilities[at], strict=True)
    )
    nats = float(observed.nats[at, 0])
    target = _quoted(tokenizer, int(observed.targets[at]))
    return f"{target}: {nats:.2f} nats, p = {np.exp(-nats):.2g}; likeliest were {guesses}"


def _quoted(tokenizer: Tokenizer, id_: int) -> str:
    """A token as it stands in its piece: what can't be seen escaped."""
    return repr(printable(tokenizer.pieces[id_].decode("utf-8", "surrogateescape")))
