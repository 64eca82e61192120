"""Every text comes back from its ids and every byte is counted; or what is lost is said."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given

from harness.compute.device import Compute
from harness.data.dataset import Dataset
from harness.data.encoded import Split
from harness.evaluation.score import score_split
from tests.zoo_tokenizers.building import ANY_TEXT, ON_THE_CORPUS, fitted, joined
from tests.zoo_tokenizers.hard_texts import PARTICULAR, any_file, any_text
from zoo.language_model import Cache, LanguageModel
from zoo_tokenizers import NotUnicode, UnknownCharacter
from zoo_tokenizers.characters import Characters
from zoo_tokenizers.huggingface import BytePairs, HuggingFace


@pytest.mark.parametrize("name", ANY_TEXT)
def test_a_thousand_random_strings_come_back(name: str, datasets: dict[str, Dataset]) -> None:
    tokenizer = datasets[name].tokenizer
    if not tokenizer.lossless:
        pytest.skip("lossy")
    token_bytes = tokenizer.token_bytes
    generator = random.Random(0)
    planes = [(0, 0x80), (0, 0x800), (0, 0xD800), (0xE000, 0x10000), (0x10000, 0x110000)]
    for _ in range(1000):
        text = "".join(
            generator.choice(PARTICULAR)
            if generator.random() < 0.3
            else chr(generator.randrange(*generator.choice(planes)))
            for _ in range(generator.randrange(40))
        )
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert int(token_bytes[ids].sum()) == len(text.encode())


@pytest.mark.parametrize("name", ANY_TEXT)
def test_any_file_comes_back(name: str, datasets: dict[str, Dataset]) -> None:
    tokenizer = datasets[name].tokenizer
    if not tokenizer.lossless:
        pytest.skip("lossy")
    token_bytes = tokenizer.token_bytes

    @given(any_file)
    def comes_back(text: str) -> None:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        size = len(text.encode("utf-8", "surrogateescape"))
        assert int(token_bytes[ids].sum()) == size

    comes_back()


@given(any_text)
def test_characters_come_back(text: str) -> None:
    if not text:
        return
    tokenizer = fitted(Characters(), text)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.pieces == [c.encode() for c in sorted(set(text))]


class Uniform(LanguageModel):
    """Every token is equally likely."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.vocab_size, self.block_size, self.receptive_field = vocab_size, None, 1
        self.head = torch.nn.Identity()

    def features(self, ids_BT: torch.Tensor, cache: Cache | None = None) -> torch.Tensor:
        self.advance(ids_BT, cache)
        return torch.zeros(*ids_BT.shape, self.vocab_size)


@pytest.mark.parametrize("name", ON_THE_CORPUS)
def test_a_uniform_model_pays_log_v_for_each_token(name: str, datasets: dict[str, Dataset]) -> None:
    tokenizer = datasets[name].tokenizer
    text = "First Citizen:\nBefore we proceed any further, hear me speak.\n"
    ids = tokenizer.encode(text)
    split = Split(ids, len(text.encode()), {})
    model = Uniform(tokenizer.vocab_size)
    score = score_split(model, split, tokenizer, Compute(torch.device("cpu"), "fp32"))
    assert score.nats_per_token == pytest.approx(math.log(tokenizer.vocab_size), rel=1e-6)
    if not tokenizer.lossless:
        assert score.bits_per_byte is None
        return
    scored = len(text) - len(tokenizer.pieces[ids[0]])
    expected = math.log2(tokenizer.vocab_size) * (len(ids) - 1) / scored
    assert score.bits_per_byte == pytest.approx(expected, rel=1e-6)
    if name == "bytes":
        assert score.bits_per_byte == pytest.approx(8, rel=1e-6)


@pytest.mark.parametrize("name", ["char", "bert", "hf"])
def test_what_takes_only_characters_names_the_place_of_a_byte_that_is_none(
    name: str, datasets: dict[str, Dataset]
) -> None:
    with pytest.raises(NotUnicode, match="byte 0xff at byte offset 3 is not UTF-8") as error:
        datasets[name].tokenizer.encode("aé\udcffb")
    assert (error.value.byte, error.value.offset) == (0xFF, 3)


def test_an_unknown_character_is_named() -> None:
    tokenizer = fitted(Characters(), "abc")
    with pytest.raises(UnknownCharacter, match="character 'é' at offset 2 is not among the 3"):
        tokenizer.encode("abéc")
    ids, unknown = tokenizer.encode_known("abéc\0é")
    assert tokenizer.decode(ids) == "abc"
    assert unknown == {"é": 2, "\0": 1}


def test_the_sign_for_a_space_is_not_a_space(datasets: dict[str, Dataset]) -> None:
    for name in ("sentencepiece", "unigram"):
        tokenizer = datasets[name].tokenizer
        assert tokenizer.decode(tokenizer.encode("a\u2581b c")) == "a\u2581b c"
        assert len(tokenizer.encode("\u2581")) == 3  # in bytes
        assert b"\n" in tokenizer.pieces
        assert len(tokenizer.encode("\n\n")) == 2


# What is said to be lossless, and what is lost


def test_a_lossy_tokenizer_says_what_it_loses(datasets: dict[str, Dataset], assets: Path) -> None:
    dataset = datasets["bert"]
    lost = dataset.lost
    assert lost is not None
    text = (assets / "tiny_shakespeare.txt").read_text()
    assert lost.characters == len(text)
    # Every capital and every line break, at least; and punctuation's odd spaces beside.
    gone = sum(c.isupper() or c == "\n" for c in text)
    assert gone <= lost.changed < 1.1 * gone
    assert len(lost.examples) == 3
    assert lost.examples[0] == ["First Citizen:\n", "first citizen :"]
    (note,) = dataset.notes()
    assert "lossy" in note
    assert str(lost.changed) in note
    assert datasets["p50k"].lost is None


def byte_level(**changes: Any) -> dict[str, Any]:
    """A learnt byte-level tokenizer.json, with parts of it replaced."""
    tokenizer = fitted(BytePairs(vocab_size=280), "a few words, and a few more " * 9)
    return json.loads(tokenizer.files()["tokenizer.json"]) | changes


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
SPLIT = {"type": "Split", "pattern": {"Regex": r"\d"}, "invert": False}
ADDED = {
    "content": "few words",
    "single_word": False,
    "rstrip": False,
    "normalized": False,
    "id": 280,
}


@pytest.mark.parametrize(
    ("changes", "lossless"),
    [
        ({}, True),
        ({"normalizer": {"type": "NFC"}}, False),
        ({"pre_tokenizer": BYTE_LEVEL | {"use_regex": True, "add_prefix_space": True}}, False),
        ({"pre_tokenizer": {"type": "Whitespace"}}, False),
        ({"pre_tokenizer": None}, False),
        (
            {
                "pre_tokenizer": {
                    "type": "Sequence",
                    "pretokenizers": [
                        SPLIT | {"behavior": "Isolated"},
                        BYTE_LEVEL | {"use_regex": False},
                    ],
                }
            },
            True,
        ),
        (
            {
                "pre_tokenizer": {
                    "type": "Sequence",
                    "pretokenizers": [
                        SPLIT | {"behavior": "Removed"},
                        BYTE_LEVEL | {"use_regex": True},
                    ],
                }
            },
            False,
        ),
        ({"added_tokens": [ADDED | {"lstrip": False, "special": False}]}, True),
        ({"added_tokens": [ADDED | {"lstrip": True, "special": False}]}, False),
    ],
)
def test_lossless_is_what_spells_all_bytes(changes: dict[str, Any], lossless: bool) -> None:
    """What it says of itself, and what it does: those said to be lossless are."""
    tokenizer = HuggingFace("made here")
    tokenizer.restore({"tokenizer.json": json.dumps(byte_level(**changes)).encode()})
    assert tokenizer.lossless == lossless
    awkward = "a few words  7 \n\n é\u0301 日 <|x|> words 😀\0"
    if lossless:
        assert tokenizer.decode(tokenizer.encode(awkward)) == awkward
        arriving = list(awkward * 3)
        pieces = list(tokenizer.rechunk(arriving))
        assert joined(tokenizer, pieces) == tokenizer.encode(awkward * 3).tolist()
