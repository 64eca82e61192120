"""What a dataset holds: ids, characters that train lacks, splits that are long enough."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.common.errors import UsageError
from harness.data import dataset, encoded
from harness.data.dataset import require_length
from harness.data.encoded import Split
from tests.data.datasets import dataset_of
from zoo_tokenizers import Tokenizer, TokenizerError, smallest_unsigned
from zoo_tokenizers.bytes import Bytes
from zoo_tokenizers.characters import Characters

# Unknown characters


def test_what_only_validation_has_is_counted_and_paid_for(tmp_path: Path) -> None:
    text = "ab" * 40 + "abcéab日" + "é" + "a" * 8
    tokenizer = Characters()
    dataset = dataset_of(tmp_path, text.encode(), tokenizer)
    val, test = dataset.val, dataset.test
    assert val is not None
    assert test is not None
    assert tokenizer.pieces == [b"a", b"b"]  # not one more than train has
    assert val.unknown == {"c": 1, "é": 1, "日": 1}
    assert test.unknown == {"é": 1}
    assert tokenizer.decode(val.ids) == "abab"
    known = int(tokenizer.token_bytes[val.ids].sum())
    assert known + sum(len(c.encode()) * n for c, n in val.unknown.items()) == val.bytes == 10
    place, code_point = math.log(4 + 3), math.log(0x110000 - 0x800)
    assert val.unknown_nats == pytest.approx(3 * (place + code_point), rel=1e-12)
    first, second = dataset.notes()
    assert "val split has 3 characters that are not in train ('c', 'é', '日')" in first
    assert "test split has 1 characters that are not in train ('é')" in second


@given(st.text(alphabet="ab日é🎭", min_size=1, max_size=30))
def test_the_code_for_unknown_characters_suffices(text: str) -> None:
    """A receiver of the ids and of (place, code point) of each unknown can write the text again,
    and that is never more than it is charged for."""
    known = "ab"
    ids = [c for c in text if c in known]
    sent = [(place, ord(c)) for place, c in enumerate(text) if c not in known]
    received = list(ids)
    for place, point in sent:  # in ascending order: each finds its place already right
        received.insert(place, chr(point))
    assert "".join(received) == text
    unknown: dict[str, int] = {}
    for _, point in sent:
        unknown[chr(point)] = unknown.get(chr(point), 0) + 1
    split = Split(np.zeros(len(ids), np.uint8), len(text.encode()), unknown)
    choices = math.comb(len(text), len(sent)) * encoded.UNICODE_SCALARS ** len(sent)
    assert split.unknown_nats >= math.log(choices) - 1e-9


# Ids in storage


class Wide(Tokenizer):
    """As many ids as asked for; every byte is written as the highest of them."""

    def __init__(self, vocab_size: int, id_: int | None = None) -> None:
        self._vocab_size, self._id = vocab_size, vocab_size - 1 if id_ is None else id_
        self.pieces = [b"x"] * min(vocab_size, 300)

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    @property
    def token_bytes(self) -> np.ndarray:
        return np.ones(self._vocab_size, dtype=np.int64)

    def encode(self, text: str) -> np.ndarray:
        return np.full(len(text), self._id, dtype=np.uint64)

    def files(self) -> dict[str, bytes]:
        return {"size": f"{self._vocab_size} {self._id}".encode()}


@pytest.mark.parametrize(
    ("vocab_size", "kind"),
    [(1, "uint8"), (256, "uint8"), (257, "uint16"), (65_536, "uint16"), (65_537, "uint32")],
)
def test_ids_are_stored_in_the_smallest_type_that_holds_them(
    tmp_path: Path, vocab_size: int, kind: str
) -> None:
    dataset = dataset_of(tmp_path, b"x" * 100, Wide(vocab_size))
    assert dataset.train.ids.dtype == kind
    assert set(dataset.train.ids.tolist()) == {vocab_size - 1}


def test_an_id_beyond_the_vocabulary_is_refused_not_wrapped(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="id 256, but its vocabulary has only 256"):
        dataset_of(tmp_path, b"x" * 100, Wide(256, 256))
    with pytest.raises(TokenizerError, match="can't be stored in 32 bits"):
        smallest_unsigned(2**32 + 1)


def test_a_tokenizer_that_is_not_as_lossless_as_it_says_is_found_out(tmp_path: Path) -> None:
    class Forgetful(Bytes):
        def encode(self, text: str) -> np.ndarray:
            return super().encode(text.replace("b", ""))

    with pytest.raises(UsageError, match="Forgetful is declared lossless"):
        dataset_of(tmp_path, b"a b c" * 20, Forgetful())


def test_counts_are_of_the_train_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setattr(dataset, "IDS_PER_COUNT", 7)
    counts = dataset_of(tmp_path, b"aab" * 30 + b"c" * 10, Bytes(), [0.9, 0.1, 0]).counts()
    assert (counts[ord("a")], counts[ord("b")], counts[ord("c")]) == (60, 30, 0)
    assert counts.sum() == 90
    assert len(counts) == 256


# Splits that are too short


@pytest.mark.parametrize("content", [b"", b"a"])
def test_an_empty_train_split_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UsageError, match=f"train split is empty: the corpus has {len(content)} "):
        dataset_of(tmp_path, content, Bytes(), [0.0, 0.5, 0.5])


def test_an_empty_train_split_names_its_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        dataset_of(tmp_path, b"a", Bytes(), [0.0, 0.5, 0.5])
    line = re.escape("the train split is empty: the corpus has 1 byte (")
    assert re.fullmatch(rf"{line}{re.escape(str(tmp_path))}/\w+.*\)", str(refused.value))


def test_a_short_split_is_refused_naming_both_lengths(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, b"x" * 100, Bytes())
    require_length(dataset, 9)
    with pytest.raises(UsageError, match=r"val split has 10 tokens.*train\.seq_len=10"):
        require_length(dataset, 10)
    empty = dataset_of(tmp_path, b"xy", Bytes(), [0.9, 0.05, 0.05])
    with pytest.raises(UsageError, match=r"val split has 0 tokens.*train\.seq_len=4"):
        require_length(dataclasses.replace(dataset, val=empty.val), 4)


def test_a_part_without_a_share_is_none(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, b"x" * 100, Bytes(), [0.9, 0.1, 0.0])
    assert dataset.test is None
    assert dataset.val is not None
    require_length(dataset, 9)
