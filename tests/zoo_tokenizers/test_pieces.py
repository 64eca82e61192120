"""A text that is encoded in pieces has the ids of the whole."""

from __future__ import annotations

import itertools
import random
import re
from pathlib import Path

import pytest
import regex  # type: ignore[import-untyped]
import tiktoken.load
import tiktoken.registry
from hypothesis import given
from hypothesis import strategies as st

from harness.data.corpus import Text
from harness.data.dataset import Dataset
from tests.zoo_tokenizers.building import ON_THE_CORPUS, joined
from tests.zoo_tokenizers.hard_texts import PARTICULAR, any_text
from zoo_tokenizers import text as text_module
from zoo_tokenizers.characters import Characters
from zoo_tokenizers.sentencepiece import SentencePiece
from zoo_tokenizers.text import last_word_start


@pytest.mark.parametrize("name", ON_THE_CORPUS)
def test_in_pieces_as_in_one(name: str, datasets: dict[str, Dataset]) -> None:
    """However the text arrives, chunks of `rechunk` give the ids of the whole."""
    tokenizer = datasets[name].tokenizer
    known = [c for c in PARTICULAR if name != "char"] or sorted(
        piece.decode() for piece in tokenizer.pieces
    )
    strings = st.lists(st.sampled_from(known), max_size=20).map("".join)

    @given(st.lists(strings, max_size=6))
    def in_pieces(arriving: list[str]) -> None:
        whole = "".join(arriving)
        pieces = list(tokenizer.rechunk(arriving))
        assert "".join(pieces) == whole
        assert joined(tokenizer, pieces) == tokenizer.encode(whole).tolist()

    in_pieces()


@pytest.mark.parametrize("name", ON_THE_CORPUS)
def test_the_corpus_in_pieces_as_in_one(
    name: str, datasets: dict[str, Dataset], assets: Path
) -> None:
    tokenizer = datasets[name].tokenizer
    text = Text((assets / "tiny_shakespeare.txt").read_bytes()[:200_000])
    whole = text.read(0, text.size).decode()
    generator = random.Random(1)
    places = sorted(generator.randrange(len(whole)) for _ in range(300))
    arriving = [whole[i:j] for i, j in zip([0, *places], [*places, len(whole)], strict=True)]
    pieces = list(tokenizer.rechunk(arriving))
    assert len(pieces) > 100  # it is cut, not held back to the end
    assert joined(tokenizer, pieces) == tokenizer.encode(whole).tolist()


@pytest.mark.parametrize("name", ["sentencepiece", "unigram"])
def test_long_lines_in_pieces_as_in_one(name: str, datasets: dict[str, Dataset]) -> None:
    tokenizer = datasets[name].tokenizer
    generator = random.Random(2)
    for _ in range(20):
        words = [generator.choice(["the ", "  king", "a", " \u2581", "x" * 40]) for _ in range(900)]
        whole = "".join(words) + generator.choice(["", "\n", " "])
        places = sorted(generator.randrange(len(whole)) for _ in range(9))
        arriving = [whole[i:j] for i, j in zip([0, *places], [*places, len(whole)], strict=True)]
        assert (
            joined(tokenizer, list(tokenizer.rechunk(arriving))) == tokenizer.encode(whole).tolist()
        )
        assert tokenizer.decode(tokenizer.encode(whole)) == whole


def test_a_long_line_is_as_the_library_has_it(datasets: dict[str, Dataset]) -> None:
    """Cut at spaces, a line of byte pairs is what sentencepiece makes of it in one piece."""
    tokenizer = datasets["sentencepiece"].tokenizer
    assert isinstance(tokenizer, SentencePiece)
    generator = random.Random(3)
    text = "".join(
        generator.choice([" the", " king", "  is", "   ", "dead", ", long"]) for _ in range(5000)
    )
    assert tokenizer.encode(text).tolist() == tokenizer._processor.encode(text)
    assert not any(regex.search(rb"[^ ] ", piece) for piece in tokenizer.pieces)


def test_a_text_that_can_not_be_cut_is_not_looked_through_again_and_again() -> None:
    seen = []

    class Uncut(Characters):
        def last_safe_cut(self, text: str) -> int:
            seen.append(len(text))
            return 0

    assert list(Uncut().rechunk(["x"] * 1000)) == ["x" * 1000]
    assert sum(seen) < 3000


PATTERNS = ["r50k_base", "p50k_base", "p50k_edit", "cl100k_base", "o200k_base", "o200k_harmony"]


def pattern_of(encoding: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The pre-tokenizer's regular expression, without its vocabulary."""
    tiktoken.list_encoding_names()
    monkeypatch.setattr(tiktoken.load, "read_file_cached", lambda url, expected_hash=None: b"")
    assert tiktoken.registry.ENCODING_CONSTRUCTORS is not None
    return str(tiktoken.registry.ENCODING_CONSTRUCTORS[encoding]()["pat_str"])


def assert_cuts_are_sound(pattern: str) -> None:
    """At each place that `last_word_start` may name, in every text of up to five characters, one of
    each kind that the patterns know."""
    compiled = regex.compile(pattern)
    for length in range(2, 6):
        for characters in itertools.product("s1!/' \n\t\r", repeat=length):
            whole = "".join(characters)
            parts = None
            for match in text_module._WORD_START.finditer(whole):
                parts = parts or compiled.findall(whole)
                cut = match.start()
                assert compiled.findall(whole[:cut]) + compiled.findall(whole[cut:]) == parts, whole


@pytest.mark.parametrize("encoding", PATTERNS)
def test_words_begin_where_the_patterns_cut(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever follows. Another implementation of regular expressions is asked, not the library."""
    pattern = pattern_of(encoding, monkeypatch)
    assert_cuts_are_sound(pattern)
    compiled = regex.compile(pattern)

    @given(any_text, any_text)
    def sound(text: str, more: str) -> None:
        cut = last_word_start(text)
        parts = compiled.findall(text[:cut]) + compiled.findall(text[cut:] + more)
        assert parts == compiled.findall(text + more)

    sound()


GPT2 = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""


def test_words_begin_where_gpt2_cuts() -> None:
    """As Hugging Face's byte-level pre-tokenizer has it."""
    assert_cuts_are_sound(GPT2)


@pytest.mark.parametrize(
    ("mutant", "encoding"),
    [
        (r"(?=\s)", "r50k_base"),  # inside a run of white space
        (r"(?<=\S)(?=\s)", "cl100k_base"),  # between punctuation and a line break
        (r"(?<=\n)", "r50k_base"),  # after a run of line breaks, which at an end is one piece
        (r"(?<=\S\n)(?=\S)", "o200k_base"),  # between a line break and "/"
        (r"(?<=\s)(?=\S)", "r50k_base"),  # between a space and its word
    ],
)
def test_other_places_are_caught(
    mutant: str, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pattern = pattern_of(encoding, monkeypatch)
    monkeypatch.setattr(text_module, "_WORD_START", re.compile(mutant))
    with pytest.raises(AssertionError):
        assert_cuts_are_sound(pattern)


def test_what_python_takes_for_white_space_includes_what_the_patterns_do() -> None:
    everything = "".join(map(chr, range(0x110000)))
    assert set(regex.findall(r"\s", everything)) <= set(re.findall(r"\s", everything))
