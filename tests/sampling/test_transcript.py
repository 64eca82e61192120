"""Text that comes token by token is the text that comes at once, in whole characters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.common.text import printable
from harness.data.assets import Assets
from harness.sampling.transcript import Transcript
from zoo_tokenizers import Tokenizer
from zoo_tokenizers.bytes import Bytes
from zoo_tokenizers.characters import Characters
from zoo_tokenizers.huggingface import BytePairs, HuggingFace

TEXT = "Grüße, 世界! \N{GRINNING FACE}\n  two spaces,\ttab… don't stop.\n"


def learnt(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.fit([TEXT * 3])
    return tokenizer


@pytest.fixture(scope="module")
def bert(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    tokenizer = HuggingFace("bert-base-uncased")
    tokenizer.fetch(Assets((assets,), tmp_path_factory.mktemp("cache")))
    return tokenizer


TOKENIZERS = {
    "char": lambda: learnt(Characters()),
    "bytes": Bytes,
    "bpe": lambda: learnt(BytePairs(300)),
}


def pieces(tokenizer: Tokenizer, prompt: list[int], ids: list[int]) -> list[str]:
    transcript = Transcript(tokenizer, prompt)
    return [transcript.text, *(transcript.add([id_]) for id_ in ids), transcript.flush()]


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("prompt", [0, 1, 7, 20])
def test_the_pieces_joined_are_the_text(name: str, prompt: int) -> None:
    """Wherever the prompt ends, be it inside a character."""
    tokenizer = TOKENIZERS[name]()
    ids = tokenizer.encode(TEXT).tolist()
    found = pieces(tokenizer, ids[:prompt], ids[prompt:])
    assert "".join(found) == TEXT
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in found)
    assert sum(map(bool, found[1:])) >= (len(ids) - prompt) / 4  # as it goes
    assert found[-1] == ""  # nothing is left for the end


def test_a_character_comes_with_its_last_byte() -> None:
    ids = Bytes().encode("aé€\N{GRINNING FACE}").tolist()
    expected = ["a", "", "é", "", "", "€", "", "", "", "\N{GRINNING FACE}", ""]
    assert pieces(Bytes(), [], ids) == ["", *expected]


def test_half_a_character_at_the_end_is_shown_in_the_end() -> None:
    ids = Bytes().encode("a€").tolist()[:-1]
    assert pieces(Bytes(), [], ids) == ["", "a", "", "", "\N{REPLACEMENT CHARACTER}"]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=24), st.integers(0, 24))
def test_any_bytes_come_out_as_at_once(content: bytes, prompt: int) -> None:
    """Also those that are no UTF-8."""
    ids = list(content)
    found = pieces(Bytes(), ids[:prompt], ids[prompt:])
    assert "".join(found) == printable(Bytes().decode(ids))


def test_a_lossy_tokenizer(bert: Tokenizer) -> None:
    """Word pieces: spaces come between words, and none before what goes on with one."""
    ids = bert.encode("Honorificabilitudinitatibus, he said; don't stop. 世界!").tolist()
    found = pieces(bert, ids[:3], ids[3:])
    assert "".join(found) == bert.decode(ids)
    assert sum(map(bool, found)) > 10
    draw = np.random.default_rng(0).integers(0, bert.vocab_size, 300).tolist()
    assert "".join(pieces(bert, draw[:1], draw[1:])) == printable(bert.decode(draw))


# Where it ends


def said(prompt: str, added: str, stop: str) -> Transcript:
    transcript = Transcript(Bytes(), list(prompt.encode()), stop)
    for id_ in added.encode():
        if not transcript.ended:
            transcript.add([id_])
    return transcript


@pytest.mark.parametrize(
    ("prompt", "added", "stop", "text"),
    [
        ("a", "bcd", "c", "abc"),
        ("a\n\nb", "c\nd\n\ne", "\n\n", "a\n\nbc\nd\n\n"),  # the prompt's own does not count,
        ("a\n", "\nb\n\n", "\n\n", "a\n\nb\n\n"),  # nor what is half in the prompt
        ("", "aaab", "aab", "aaab"),
        ("x", "é€", "€", "xé€"),
        ("x", "yz", "q", "xyz"),
    ],
)
def test_a_text_ends_with_what_it_is_to_stop_at(
    prompt: str, added: str, stop: str, text: str
) -> None:
    found = said(prompt, added, stop)
    assert found.text == text
    assert found.ended == (stop in added)


def test_what_a_token_says_beyond_the_stop_is_cut() -> None:
    tokenizer = learnt(BytePairs(300))
    transcript = Transcript(tokenizer, [], " two")
    assert transcript.add(tokenizer.encode(TEXT).tolist()) == TEXT[: TEXT.index(" two") + 4]
    assert transcript.ended
