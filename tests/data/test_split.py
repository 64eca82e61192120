"""A text is split by bytes, between characters, and read in blocks as in one piece."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data import corpus as corpus_module
from harness.data.assets import Assets
from harness.data.corpus import PythonDocs, Text, TextFile, split_points
from harness.data.dataset import prepare
from tests.data.datasets import SHARES, parts_of
from zoo_tokenizers.bytes import Bytes
from zoo_tokenizers.characters import Characters

SHAKESPEARE = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


def split_bytes(content: bytes, shares: list[float]) -> list[bytes]:
    return [content[start:stop] for start, stop in split_points(Text(content), shares)]


def test_the_real_corpus_is_split_by_bytes(assets: Path) -> None:
    content = (assets / "tiny_shakespeare.txt").read_bytes()
    assert len(content) == 1_115_394
    assert [len(part) for part in split_bytes(content, SHARES)] == [892_315, 111_539, 111_540]
    assert b"".join(split_bytes(content, SHARES)) == content


def test_the_real_corpus_is_split_as_nanogpt_does(assets: Path) -> None:
    content = (assets / "tiny_shakespeare.txt").read_bytes()
    train, val, test = split_bytes(content, [0.9, 0.1, 0.0])
    assert (len(train), len(val), len(test)) == (1_003_854, 111_540, 0)


def test_the_real_corpus_as_datasets(assets: Path, tmp_path: Path) -> None:
    """The characters of the train split alone, and each byte of each part once."""
    corpus = TextFile(str(assets / "tiny_shakespeare.txt"), SHARES)
    for tokenizer, vocab_size in ((Characters(), 65), (Bytes(), 256)):
        dataset = prepare(corpus, tokenizer, Assets((), tmp_path))
        assert dataset.digest == SHAKESPEARE
        assert tokenizer.vocab_size == vocab_size
        for part, size in zip(parts_of(dataset), [892_315, 111_539, 111_540], strict=True):
            assert part.bytes == len(part.ids) == size  # all of it is ASCII
            assert part.ids.dtype == np.uint8
            assert isinstance(part.ids.base, np.memmap)
            assert not part.unknown
        whole = "".join(tokenizer.decode(part.ids) for part in parts_of(dataset))
        assert hashlib.sha256(whole.encode()).hexdigest() == SHAKESPEARE


@given(
    st.text(),
    st.tuples(*[st.integers(0, 100)] * 3).filter(any),
)
def test_cuts_fall_on_the_nearest_character_start(text: str, weights: tuple[int, ...]) -> None:
    content = text.encode()
    shares = [weight / sum(weights) for weight in weights]
    parts = split_bytes(content, shares)
    assert b"".join(parts) == content
    assert "".join(part.decode() for part in parts) == text  # each part is whole characters
    starts = [len(text[:n].encode()) for n in range(len(text) + 1)]
    place = 0
    for part, share in zip(parts, itertools.accumulate(shares[:2]), strict=False):
        place += len(part)
        wanted = int(share * len(content) + 1e-6)
        assert abs(place - wanted) == min(abs(start - wanted) for start in starts)


@given(st.binary(max_size=200), st.tuples(*[st.integers(0, 9)] * 3).filter(any))
def test_any_bytes_can_be_split(content: bytes, weights: tuple[int, ...]) -> None:
    """Joined, the parts' texts are the text: what is not UTF-8 is not cut into something else."""
    shares = [weight / sum(weights) for weight in weights]
    parts = split_bytes(content, shares)
    texts = [part.decode("utf-8", "surrogateescape") for part in parts]
    assert "".join(texts) == content.decode("utf-8", "surrogateescape")


def test_shares_that_are_no_binary_fractions_cut_where_they_should() -> None:
    """0.7 + 0.1 is a hair below 0.8 in floating point."""
    assert [len(part) for part in split_bytes(b"x" * 10, [0.7, 0.1, 0.2])] == [7, 1, 2]


@pytest.mark.parametrize("split", [[0.8, 0.1], [0.8, 0.3, -0.1], [0.5, 0.1, 0.1], [1, 1, 1]])
def test_shares_must_add_up_to_one(split: list[float]) -> None:
    with pytest.raises(ValueError, match="three shares that add up to 1"):
        PythonDocs(split)


@given(content=st.binary(max_size=300), block=st.integers(1, 9))
@settings(max_examples=200)
def test_blocks_give_the_same_text(content: bytes, block: int) -> None:
    """Read a few bytes at a time, characters (and what is none) come out as from one piece."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus_module, "BLOCK", block)
        pieces = list(Text(content).strings(0, len(content)))
        assert "".join(pieces) == content.decode("utf-8", "surrogateescape")
        half = len(content) // 2
        whole, parts = Text(content).spans([(0, half), (half, len(content))])
        for span, piece in (
            (whole, content),
            (parts[0], content[:half]),
            (parts[1], content[half:]),
        ):
            assert content[span.start : span.stop] == piece
            assert span.sha256 == hashlib.sha256(piece).hexdigest()


@given(st.text(max_size=300).map(str.encode), st.integers(1, 9))
def test_a_block_never_splits_a_character(content: bytes, block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus_module, "BLOCK", block)
        for piece in Text(content).strings(0, len(content)):
            piece.encode()  # raises for half a character
