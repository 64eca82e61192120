"""Classes of tokens against plain definitions, whatever the tokenizer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.evaluation import token_classes as classes
from harness.evaluation.token_classes import KINDS, Partition, TokenText
from zoo_tokenizers import Tokenizer
from zoo_tokenizers.bytes import Bytes
from zoo_tokenizers.characters import Characters

PLAY = "First Lord:\nO, 7 men; I've said\n\nA:\nno: it's 10\n"


class Words(Tokenizer):
    """Tokens of several characters; one begins with a space, as those of byte-level BPE do."""

    pieces = (b"he", b"llo", b" the", b"re", b"\n", b" ", b"!", b"\xe2\x82", b"\xac")

    def encode(self, text: str) -> np.ndarray:
        raise AssertionError("its ids are given")


def characters(text: str) -> tuple[Tokenizer, np.ndarray]:
    tokenizer = Characters()
    tokenizer.fit([text])
    return tokenizer, tokenizer.encode(text).astype(np.int64)


def named(partition: Partition) -> list[str]:
    return [partition.names[label] for label in partition.labels]


def test_kinds_of_characters() -> None:
    tokenizer, ids = characters(PLAY)
    found = named(classes.by_kind(TokenText(tokenizer, ids)))
    at = dict(enumerate(["first", *found]))  # the first token is not scored

    def kind(of: str, within: int = 0) -> str:
        return at[PLAY.index(of) + within]

    assert {at[place] for place in range(1, len("First Lord:"))} == {"speaker's name"}
    assert kind("\nO") == "line break"
    assert [kind("O, 7", n) for n in range(4)] == [
        *("start of a word", "punctuation", "space", "digit"),
    ]
    assert [kind("men", n) for n in range(3)] == ["start of a word"] + 2 * ["rest of a word"]
    assert [kind("I've", n) for n in range(4)] == [
        *("start of a word", "punctuation", "start of a word", "rest of a word"),
    ]
    assert kind("A:\n") == "speaker's name"
    assert kind("no:", 2) == "punctuation"  # a line that goes on after its colon is no name


def test_kinds_of_longer_tokens() -> None:
    """By the first character that is no space; a piece of a character is its character."""
    ids = np.array([4, 0, 1, 2, 3, 5, 5, 6, 7, 8])
    found = named(classes.by_kind(TokenText(Words(), ids)))
    assert found == [
        *("start of a word", "rest of a word", "start of a word", "rest of a word"),
        *("space", "space", "punctuation", "punctuation", "punctuation"),
    ]


@settings(max_examples=40)
@given(st.text(st.sampled_from("aB 7.\né€😀\udcff\x00"), min_size=2, max_size=40))
def test_every_token_has_a_class_of_every_text(text: str) -> None:
    """Also bytes that are no UTF-8."""
    tokenizer = Bytes()
    ids = tokenizer.encode(text).astype(np.int64)
    counts = np.bincount(ids, minlength=tokenizer.vocab_size)
    for partition in classes.of_text(tokenizer, ids[: len(ids) // 2], ids, counts, 8):
        assert len(partition.labels) == len(ids) - 1
        assert partition.labels.min(initial=0) >= 0
        assert partition.labels.max(initial=0) < len(partition.names)
    read = TokenText(tokenizer, ids)
    plain = [classes._kind(character) for character in text]
    at = [place for place, each in enumerate(text) for _ in each.encode("utf-8", "surrogateescape")]
    assert read.first_M.tolist() == at
    own = [KINDS[kind] for kind in read.kinds]
    for place, kind in enumerate(plain):
        letters = ("start of a word", "rest of a word", "speaker's name")
        assert own[place] in (
            letters if KINDS[kind] == "rest of a word" else (KINDS[kind], letters[2])
        )


IDS = st.lists(st.integers(0, 2), min_size=2, max_size=30)


@settings(max_examples=40)
@given(IDS, IDS)
def test_the_longest_ngram_that_train_has(train: list[int], ids: list[int]) -> None:
    found = classes.longest_seen(np.array(train), np.array(ids), 5)
    grams = {tuple(train[at : at + n]) for n in range(1, 6) for at in range(len(train) - n + 1)}
    for at, length in enumerate(found):
        own = [n for n in range(1, min(5, at + 1) + 1) if tuple(ids[at + 1 - n : at + 1]) in grams]
        assert length == max(own, default=0)


@settings(max_examples=40)
@given(IDS, st.integers(1, 4), st.integers(1, 20))
def test_what_repeats_within_the_context(ids: list[int], length: int, context: int) -> None:
    """The whole n-gram lies a second time among the `context` tokens before its last one."""
    found = classes.repeated(np.array(ids), length, context)
    for at, repeats in enumerate(found):
        own, before = tuple(ids[at + 1 - length : at + 1]), ids[max(0, at - context) : at]
        grams = {tuple(before[n : n + length]) for n in range(len(before) - length + 1)}
        assert repeats == (at + 1 >= length and own in grams)


def test_what_repeats_is_new_to_train_or_not() -> None:
    ids = np.array([0, 1, 2, 3, 0, 1, 2, 3])
    longest = classes.longest_seen(np.array([1, 2, 3]), ids, 7)
    found = classes.by_repetition(ids, longest, 2, 8)
    new, known, once = found.names
    assert named(found) == [once, once, once, once, new, known, known]


def test_bands() -> None:
    found = classes.by_frequency(np.array([0, 1, 9, 10, 99, 100, 250]))
    low = "1 to 9 times", "10 to 99 times"
    assert named(found) == ["never", low[0], low[0], low[1], low[1], *["100 times or more"] * 2]
    assert named(classes.by_frequency(np.array([0, 0]))) == ["never", "never"]
    certain = classes.by_certainty(np.array([-1e-9, 0.2, 0.5, 2.9, 3.0, 16.0]))
    assert named(certain) == [
        *("0 to 0.5 bits", "0 to 0.5 bits", "0.5 to 1 bits", "2 to 3 bits"),
        *("3 bits or more", "3 bits or more"),
    ]
    longest = classes.by_ngram(np.array([0, 1, 6, 7, 9]))
    assert named(longest) == [
        *("new to train", "1-gram", "6-gram", "7-gram or longer", "7-gram or longer"),
    ]


def test_the_place_in_the_line() -> None:
    tokenizer, ids = characters("ab\ncdefghijklmnopqrstuvwxyzABCDEFGHIJK\n\nx")
    found = named(classes.by_column(TokenText(tokenizer, ids)))
    assert found[:3] == ["2 to 4", "2 to 4", "1"]  # b, the line break, c
    line = found[2 : 2 + 36]
    assert line == ["1"] + 3 * ["2 to 4"] + 12 * ["5 to 16"] + 16 * ["17 to 32"] + 4 * [
        "33 or later"
    ]
    assert found[-2:] == ["1", "1"]  # an empty line's break, x


@pytest.mark.parametrize("wrong", [lambda ids: ids[:-1], lambda ids: ids + 1])
def test_the_definitions_can_fail(wrong: Callable[[np.ndarray], np.ndarray]) -> None:
    train = np.array([0, 1, 2, 0, 1, 1])
    assert not np.array_equal(
        classes.longest_seen(train, train, 6), classes.longest_seen(wrong(train), train, 6)
    )
