"""Passages that parts of a text have in common, against a search byte by byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data import overlap as module
from harness.data.corpus import Span, Text
from harness.data.describe import describe, render
from harness.data.overlap import BLOCK, LONG, covered, found_in, hashes, overlap
from tests.data.datasets import dataset_of
from zoo_tokenizers.bytes import Bytes


def noise(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def of(part: bytes, other: bytes) -> module.Overlap:
    text = Text(other + part)
    return overlap(text, Span(len(other), text.size, ""), Span(0, len(other), ""))


@settings(max_examples=40)
@given(
    st.binary(max_size=60).map(lambda x: bytes(byte % 3 for byte in x)),
    st.binary(max_size=60).map(lambda x: bytes(byte % 3 for byte in x)),
    st.integers(1, 9),
    st.integers(1, 20),
)
def test_passages_are_found_as_by_a_search(
    content: bytes, there: bytes, length: int, chunk: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", chunk)
        found = found_in(content, Text(b"#" + there), Span(1, 1 + len(there), ""), length)
    places = range(len(content) - length + 1)
    assert found.tolist() == [content[at : at + length] in there for at in places]
    marked = covered(found, length, len(content))
    expected = np.zeros(len(content), dtype=bool)
    for at in np.flatnonzero(found):
        expected[at : at + length] = True
    assert marked.tolist() == expected.tolist()


@pytest.mark.parametrize("length", [1, 2, 3, 31, 32, 33, 64])
def test_hashes_depend_on_every_byte_and_on_their_order(length: int) -> None:
    content = np.frombuffer(noise(length), np.uint8)
    (own,) = hashes(content, length)
    for at in range(length):
        other = content.copy()
        other[at] ^= 1
        assert hashes(other, length)[0] != own
    if length > 2:
        assert hashes(content[::-1].copy(), length)[0] != own
    many = np.frombuffer(noise(1 << 14), np.uint8)
    count = len(np.unique(np.lib.stride_tricks.sliding_window_view(many, length), axis=0))
    assert len(np.unique(hashes(many, length))) == count


def test_a_planted_passage_is_measured() -> None:
    train = noise(50_000)
    held_out = noise(3000, 1) + train[700:1000] + noise(2000, 2) + train[9000 : 9000 + LONG - 1]
    found = of(held_out, train)
    assert (found.bytes, found.copied, found.longest) == (len(held_out), 300, 300)
    assert (found.blocks, found.near) == (5, 0)
    assert of(held_out + train[9063:9064], train).copied == 300 + LONG
    nothing = of(noise(5000, 1), train)
    assert (nothing.copied, nothing.longest, nothing.near) == (0, 0, 0)


@pytest.mark.parametrize(("every", "is_near"), [(100, True), (70, True), (60, False), (40, False)])
def test_a_copy_with_some_changes_is_a_near_duplicate(every: int, is_near: bool) -> None:
    """A change of a byte leaves every - 32 of `every` passages as they are."""
    train = noise(50_000)
    changed = bytearray(train[BLOCK * 3 : BLOCK * 9])
    for at in range(0, len(changed), every):
        changed[at] ^= 255
    found = of(noise(2 * BLOCK, 1) + bytes(changed) + noise(2 * BLOCK, 2), train)
    assert found.copied == (0 if every <= LONG else pytest.approx(len(changed), rel=0.05))
    assert found.blocks == 10
    assert found.near == (6 if is_near else 0)


def test_parts_of_a_few_bytes() -> None:
    for size in (0, 1, 31, 32, 63, 64, 65):
        found = of(noise(size), noise(200))
        assert found.copied == (size if size >= LONG else 0)
        assert found.blocks == found.near == (size >= module.SHINGLE)


def test_prepare_reports_it(tmp_path: Path) -> None:
    train, passage = noise(8000), noise(200, 3)
    content = passage + train[:7800] + noise(800, 1) + passage + noise(800, 2) + passage
    dataset = dataset_of(tmp_path, content, Bytes())
    found = describe(dataset)["overlap"]
    assert list(found) == ["val in train", "test in train", "test in val"]
    assert found["val in train"].copied == found["test in train"].copied == len(passage)
    shown = render("noise", "bytes", describe(dataset))
    line = "200 of 1,000 bytes (20.00%) in passages of 64 bytes or more, the longest 200; 0 of 1"
    assert f"\ntest in train    {line} blocks are near-duplicates\n" in f"{shown}\n"
    alone = dataset_of(tmp_path, content, Bytes(), [1.0, 0.0, 0.0])
    assert describe(alone)["overlap"] == {}
