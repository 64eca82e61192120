"""Range coding: arithmetic coding a byte at a time (Martin 1979, "Range encoding: an algorithm for
removing redundancy from a digitised message").

A symbol is an interval [start, start + size) of [0, total). All numbers are integers, so encoder
and decoder agree exactly.
"""

from __future__ import annotations

BITS = 64
TOP, LEAST = 2**BITS, 2 ** (BITS - 8)  # of the range, before and after it is scaled up
MAX_TOTAL = 2**40  # costs at most 2^-16 bits a symbol in rounding


class RangeEncoder:
    """Collects intervals into bytes."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._low, self._range = 0, TOP

    def encode(self, start: int, size: int, total: int) -> None:
        unit = self._range // total
        self._add(start * unit)
        self._range = size * unit
        while self._range < LEAST:
            self._shift()
            self._range <<= 8

    def finish(self) -> bytes:
        """The shortest bytes whose value lies in the last interval."""
        for free in reversed(range(0, BITS + 8, 8)):
            value = -(-self._low >> free) << free  # rounded up
            if value < self._low + self._range:
                break
        self._add(value - self._low)
        for _ in range(BITS // 8):
            self._shift()
        return bytes(self._bytes).rstrip(b"\0")

    def _add(self, value: int) -> None:
        self._low += value
        if self._low >= TOP:  # carry
            self._low -= TOP
            at = len(self._bytes) - 1
            while self._bytes[at] == 255:
                self._bytes[at] = 0
                at -= 1
            self._bytes[at] += 1

    def _shift(self) -> None:
        self._bytes.append(self._low >> (BITS - 8))
        self._low = self._low << 8 & TOP - 1


class RangeDecoder:
    """Reads the intervals back: `target`, then `consume`, for each symbol."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, BITS // 8
        self._value = int.from_bytes(content[: self._at].ljust(self._at, b"\0"))
        self._range = TOP

    def target(self, total: int) -> int:
        """A number in [0, total) that lies in the next symbol's interval."""
        return min(self._value // (self._range // total), total - 1)

    def consume(self, start: int, size: int, total: int) -> None:
        unit = self._range // total
        self._value -= start * unit
        self._range = size * unit
        while self._range < LEAST:
            following = self._content[self._at] if self._at < len(self._content) else 0
            self._value = (self._value << 8 | following) & TOP - 1
            self._range <<= 8
            self._at += 1
