"""Passages that two texts have in common, byte for byte, and near-duplicates.

Passages are compared by hashes of 64 bits: a chance of 2^-64 for each two to be taken for equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.data.corpus import Span, Text

LONG = 64  # bytes of a passage that is long
SHINGLE, BLOCK, SHARE = 32, 1024, 0.5  # of a near-duplicate, see `Overlap`
CHUNK = 1 << 20  # bytes hashed at a time
MOST_HELD_OUT, MOST_SEARCHED = 1 << 24, 1 << 28  # bytes that are looked at, at the start
_TABLE = 1 << 24  # entries of a table that most hashes are refused by


@dataclass(frozen=True)
class Overlap:
    """What a part has in common with another.

    bytes: of the part, as far as it was looked at. copied: those in passages of LONG bytes or more
    that the other has, too. longest: the longest run of which every LONG bytes are in the other.
    blocks: of BLOCK bytes in the part. near: near-duplicates among them, of whose passages of
    SHINGLE bytes the other has a SHARE or more. searched: the bytes of the other.
    """

    bytes: int
    copied: int
    longest: int
    blocks: int
    near: int
    searched: int


def overlap(text: Text, part: Span, other: Span) -> Overlap:
    """Between two parts of a text."""
    stop = min(part.stop, part.start + MOST_HELD_OUT)
    content = text.read(part.start, stop)
    other = other._replace(stop=min(other.stop, other.start + MOST_SEARCHED))
    is_long = found_in(content, text, other, LONG)
    copied = covered(is_long, LONG, len(content))
    shared = found_in(content, text, other, SHINGLE)
    # A block's passages are those that begin in it; less than half a block goes to the one before.
    starts = np.arange(0, max(1, len(shared) - BLOCK // 2), BLOCK)[: len(shared)]
    counts = np.diff([*starts.tolist(), len(shared)])
    sums = np.add.reduceat(shared, starts, dtype=np.int64) if len(shared) else counts[:0]
    edges = np.flatnonzero(np.diff(is_long, prepend=False, append=False))
    runs = np.diff(edges)[::2]
    return Overlap(
        bytes=len(content),
        copied=int(copied.sum()),
        longest=int(runs.max()) + LONG - 1 if len(runs) else 0,
        blocks=len(starts),
        near=int((sums >= SHARE * counts[: len(sums)]).sum()),
        searched=other.stop - other.start,
    )


def found_in(content: bytes, text: Text, where: Span, length: int) -> NDArray[np.bool_]:
    """(N - length + 1,): whether the passage of `length` bytes that begins at each byte of the
    content, (N,), occurs in a span of the text."""
    own = hashes(np.frombuffer(content, np.uint8), length)
    wanted, place = np.unique(own, return_inverse=True)
    found = np.zeros(len(wanted), dtype=np.bool_)
    if not len(wanted):
        return found
    table = np.zeros(_TABLE, dtype=np.bool_)
    table[wanted % np.uint64(_TABLE)] = True
    for chunk in _overlapping(text, where, length - 1):
        there = hashes(np.frombuffer(chunk, np.uint8), length)
        there = there[table[there % np.uint64(_TABLE)]]
        at = np.minimum(np.searchsorted(wanted, there), len(wanted) - 1)
        found[at[wanted[at] == there]] = True
    return found[place]


def covered(begins: NDArray[np.bool_], length: int, size: int) -> NDArray[np.bool_]:
    """(size,): the bytes that lie in a passage of `length` bytes of those that begin where `begins`
    says."""
    change = np.zeros(size + 1, dtype=np.int64)
    at = np.flatnonzero(begins)
    change[at] += 1
    change[at + length] -= 1
    return np.cumsum(change[:-1]) > 0


def hashes(content_N: NDArray[np.uint8], length: int) -> NDArray[np.uint64]:
    """(N - length + 1,): of each passage of `length` bytes; that of twice as many bytes is made of
    those of its halves."""
    found, reach = _mixed(content_N.astype(np.uint64)), 1
    while reach < length and len(found):
        step = min(reach, length - reach)
        found = _mixed(found[:-step] * np.uint64(0x9E3779B97F4A7C15) + found[step:])
        reach += step
    return found


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of SplitMix64 (Steele, Lea & Flood 2014): each bit depends on all."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _overlapping(text: Text, where: Span, more: int) -> Iterator[bytes]:
    """A span in chunks, each with the first `more` bytes of the next."""
    for start in range(where.start, where.stop, CHUNK):
        yield text.read(start, min(start + CHUNK + more, where.stop))
