"""Classes of tokens, to see at what one model is better than another.

Each partition puts every token into one class. All but the certainty depend on the text alone, so
they are the same for every model. M ids of a split, N = M - 1 of them scored, V vocabulary.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from zoo_tokenizers import Tokenizer

Labels = NDArray[np.integer]
NGRAMS = 7  # the longest that is looked for in train
REPEAT_BYTES = 6  # about how long a repeated n-gram is
COLUMNS = (0, 1, 4, 16, 32)
BITS = (0.0, 0.5, 1.0, 2.0, 3.0)
KINDS = (
    *("speaker's name", "start of a word", "rest of a word", "digit", "punctuation"),
    *("space", "line break", "other"),
)
_SPEAKER, _START, _REST, _DIGIT, _PUNCTUATION, _SPACE, _BREAK, _OTHER = range(len(KINDS))
# A line that begins a paragraph, is short and ends with a colon.
SPEAKERS = re.compile(r"(?:\A|(?<=\n\n)|(?<=\r\n\r\n))([^\W\d_][^\n:.!?]{0,40}:)(?=\r?\n)")


@dataclass(frozen=True)
class Partition:
    """title: what it divides by. names: (C,), of the classes. labels: (N,), each token's class.
    note: how it is found, in a sentence."""

    title: str
    names: tuple[str, ...]
    labels: Labels
    note: str


def of_text(
    tokenizer: Tokenizer,
    train: NDArray[np.integer],
    ids_M: NDArray[np.integer],
    counts_V: NDArray[np.integer],
    context: int,
) -> list[Partition]:
    """The partitions that depend on the text alone. context: the tokens in which a repetition is
    looked for."""
    text = TokenText(tokenizer, ids_M)
    length = max(2, round(REPEAT_BYTES * len(ids_M) / max(1, text.bytes)))
    ngrams_M = longest_seen(train, ids_M, max(NGRAMS, length))
    return [
        by_kind(text),
        by_frequency(counts_V[ids_M[1:]]),
        by_ngram(ngrams_M[1:]),
        by_repetition(ids_M, ngrams_M, length, context),
        by_column(text),
    ]


def by_frequency(counts_N: NDArray[np.integer]) -> Partition:
    """By powers of ten of how often train has the token."""
    edges = [0, *(10**power for power in range(len(str(int(counts_N.max(initial=0))))))]
    spans = [f"{low:,} to {high - 1:,} times" for low, high in pairwise(edges[1:])]
    names = ("never", *spans, f"{edges[-1]:,} times or more")
    labels_N = np.searchsorted(edges, counts_N, "right") - 1
    return Partition("how often train has the token", names, labels_N, "")


def longest_seen(
    train: NDArray[np.integer], ids_M: NDArray[np.integer], most: int
) -> NDArray[np.int64]:
    """(M,): the length of the longest n-gram that ends with each id and that train has, up to
    `most`; 0 for an id that train lacks. Nothing before the split belongs to an n-gram."""
    train, ids_M = np.asarray(train, np.int64), np.asarray(ids_M, np.int64)
    vocabulary = int(max(train.max(initial=0), ids_M.max(initial=0))) + 1
    found_M, ranks, ranks_M = np.zeros_like(ids_M), np.zeros_like(train), np.zeros_like(ids_M)
    for length in range(1, most + 1):
        if length > 1:  # the rank of the shorter n-gram that ends one token before
            ranks, ranks_M = (np.concatenate(([-1], own[:-1])) for own in (ranks, ranks_M))
        keys = np.where(ranks < 0, -1, ranks * vocabulary + train)
        keys_M = np.where(ranks_M < 0, -1, ranks_M * vocabulary + ids_M)
        known, ranks = np.unique(keys, return_inverse=True)
        places_M = np.searchsorted(known, keys_M).clip(max=len(known) - 1)
        seen_M = (known[places_M] == keys_M) & (keys_M >= 0)
        ranks[keys < 0] = -1
        ranks_M = np.where(seen_M, places_M, -1)
        found_M[seen_M] = length
    return found_M


def by_ngram(longest_N: NDArray[np.integer]) -> Partition:
    """By the longest n-gram that ends with the token and that train has."""
    names = ("new to train", *(f"{n}-gram" for n in range(1, NGRAMS)), f"{NGRAMS}-gram or longer")
    note = "The longest n-gram that ends with the token and that train has; longer ones are new."
    labels_N = longest_N.clip(max=NGRAMS)
    return Partition("longest n-gram seen in train", names, labels_N, note)


def by_repetition(
    ids_M: NDArray[np.integer], longest_M: NDArray[np.integer], length: int, context: int
) -> Partition:
    """Whether the n-gram of `length` tokens that ends with the token came before in the last
    `context` tokens; if so, whether train has it, too. What is new to train can only be had from
    the context (Arora et al. 2023, arXiv 2312.04927, section 3)."""
    repeated_N = repeated(ids_M, length, context)[1:]
    known_N = longest_M[1:] >= length
    names = ("repeated, new to train", "repeated, train has it too", "not repeated")
    note = (
        f"Whether the {length}-gram that ends with the token came before within the last "
        f"{context:,} tokens."
    )
    labels_N = np.where(repeated_N, known_N.astype(np.int64), 2)
    return Partition("repeated earlier in the context", names, labels_N, note)


def repeated(ids_M: NDArray[np.integer], length: int, context: int) -> NDArray[np.bool_]:
    """(M,): whether the n-gram that ends with each id lies a second time, wholly, in the `context`
    tokens before the id."""
    ranks = np.asarray(ids_M, np.int64)
    vocabulary = int(ranks.max(initial=0)) + 1
    for shorter in range(1, length):
        ranks = np.unique(ranks[:-1] * vocabulary + ids_M[shorter:], return_inverse=True)[1]
    order = np.argsort(ranks, kind="stable")
    before, after = order[:-1], order[1:]
    near = (ranks[before] == ranks[after]) & (after - before <= context - length + 1)
    found_M = np.zeros(len(ids_M), bool)
    found_M[after[near] + length - 1] = True
    return found_M


def by_certainty(entropy_N: NDArray[np.floating]) -> Partition:
    """By the entropy of a counted model's prediction, in bits, before it sees the token."""
    spans = [f"{low:g} to {high:g} bits" for low, high in pairwise(BITS)]
    names = (*spans, f"{BITS[-1]:g} bits or more")
    labels_N = np.searchsorted(BITS, entropy_N, "right").clip(min=1) - 1
    note = "The entropy of the floor's prediction: few bits where counting is sure."
    return Partition("how unsure the floor is", names, labels_N, note)


class TokenText:
    """A split as text, and where each of its tokens lies in it."""

    def __init__(self, tokenizer: Tokenizer, ids_M: NDArray[np.integer]) -> None:
        sizes_M = tokenizer.token_bytes[ids_M]
        joined = b"".join([tokenizer.pieces[id_] for id_ in ids_M.tolist()])
        self.bytes = len(joined)
        self.text = joined.decode("utf-8", "surrogateescape")
        encoded = self.text.encode("utf-32-le", "surrogatepass")
        self.points = np.frombuffer(encoded, np.uint32)
        starts = np.cumsum(self._sizes()) - self._sizes()
        begins_M = np.cumsum(sizes_M) - sizes_M
        self.first_M = self._at(starts, begins_M)
        self._last_M = self._at(starts, begins_M + np.maximum(sizes_M, 1) - 1)

    def _sizes(self) -> NDArray[np.int64]:
        """The bytes of each character; of a byte that is no UTF-8 one."""
        sizes = 1 + sum((self.points >= limit).astype(np.int64) for limit in (1 << 7, 1 << 11))
        sizes += self.points >= 1 << 16
        sizes[(self.points >= 0xDC80) & (self.points <= 0xDCFF)] = 1
        return sizes

    def _at(self, starts: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
        """The character that each byte belongs to."""
        return (np.searchsorted(starts, offsets, "right") - 1).clip(0)

    @cached_property
    def kinds(self) -> NDArray[np.int64]:
        """The class of each character, an index of KINDS."""
        known, places = np.unique(self.points, return_inverse=True)
        kinds = np.array([_kind(chr(point)) for point in known.tolist()], np.int64)[places]
        first = np.ones(len(kinds), bool)
        first[1:] = kinds[:-1] != _REST
        kinds[(kinds == _REST) & first] = _START
        for match in SPEAKERS.finditer(self.text):
            kinds[match.start(1) : match.end(1)] = _SPEAKER
        return kinds

    @cached_property
    def decisive_M(self) -> NDArray[np.int64]:
        """The character that decides what a token is: its first that is no space."""
        places = np.arange(len(self.kinds))
        following = np.where(self.kinds == _SPACE, len(places), places)
        following = np.minimum.accumulate(following[::-1])[::-1]
        next_M = following[self.first_M]
        return np.where(next_M <= self._last_M, next_M, self.first_M)


def _kind(character: str) -> int:
    """A letter is the rest of a word, until it is seen to be its start."""
    if character in "\n\r\x0b\x0c\x85\u2028\u2029":
        return _BREAK
    if character.isspace():
        return _SPACE
    category = unicodedata.category(character)[0]
    return {"L": _REST, "M": _REST, "N": _DIGIT, "P": _PUNCTUATION, "S": _PUNCTUATION}.get(
        category, _OTHER
    )


def by_kind(text: TokenText) -> Partition:
    """By the first character of the token that is no space."""
    note = (
        "By the token's first character that is no space. A speaker's name is a short line that "
        "begins a paragraph and ends with a colon."
    )
    return Partition("kind of token", KINDS, text.kinds[text.decisive_M][1:], note)


def by_column(text: TokenText) -> Partition:
    """By how many characters of its line come before the token."""
    breaks = np.flatnonzero(text.points == ord("\n"))
    first_N = text.first_M[1:]
    line_N = np.searchsorted(breaks, first_N)  # a line break ends its own line
    begins_N = np.concatenate(([0], breaks + 1))[line_N]
    labels_N = np.searchsorted(COLUMNS, first_N - begins_N, "right") - 1
    return Partition("place in the line", _column_names(COLUMNS), labels_N, "In characters.")


def _column_names(edges: Sequence[int]) -> tuple[str, ...]:
    spans = [
        f"{low + 1} to {high}" if high - low > 1 else f"{high}" for low, high in pairwise(edges)
    ]
    return (*spans, f"{edges[-1] + 1} or later")
