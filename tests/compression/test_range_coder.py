"""Symbols in, symbols out, at the cost that their shares promise."""

from __future__ import annotations

import math
import random

import pytest

from harness.compression.range_coder import MAX_TOTAL, RangeDecoder, RangeEncoder

Symbol = tuple[int, int, int]


def encoded(symbols: list[Symbol]) -> bytes:
    encoder = RangeEncoder()
    for symbol in symbols:
        encoder.encode(*symbol)
    return encoder.finish()


def assert_decoded(symbols: list[Symbol], content: bytes) -> None:
    decoder = RangeDecoder(content)
    for start, size, total in symbols:
        assert start <= decoder.target(total) < start + size
        decoder.consume(start, size, total)


@pytest.mark.parametrize("seed", range(20))
def test_what_was_encoded_is_decoded_at_its_cost(seed: int) -> None:
    draw = random.Random(seed)
    symbols = []
    for _ in range(500):
        total = draw.choice([2, 65, 50_257, 2**32, MAX_TOTAL])
        start = draw.choice([0, total - 1, draw.randrange(total)])
        symbols.append((start, draw.randint(1, total - start), total))
    content = encoded(symbols)
    assert_decoded(symbols, content)
    bits = sum(math.log2(total / size) for _, size, total in symbols)
    assert len(content) <= bits * (1 + 1e-6) / 8 + 500 * 2**-16 / 8 + 2


@pytest.mark.parametrize("last", [0, 1, 2])
def test_a_carry_runs_through_all_bytes_before_it(last: int) -> None:
    """Just below one half, symbol after symbol: bytes of 255 that a carry turns into 0."""
    symbols = [(2**31 - 1, 2, 2**32)] * 40 + [(last, 1, 3)]
    assert_decoded(symbols, encoded(symbols))


def test_certain_symbols_cost_nothing() -> None:
    assert encoded([(0, 7, 7)] * 1000) == b""
    assert_decoded([(0, 7, 7)] * 1000, b"")
