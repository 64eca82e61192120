"""A tokenizer.json from elsewhere gives a working tokenizer or one line."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from harness.common.errors import UsageError
from harness.data.assets import Assets
from harness.data.corpus import TextFile
from harness.data.dataset import Dataset, prepare
from tests.data.datasets import SHARES
from zoo_tokenizers.huggingface import _BYTES, LONGEST_WORD, BytePairs, HuggingFace

TEXT = "green bottles, hanging on the wall; " * 40
WORDS = {"green": 0, "wall": 1, "[UNK]": 2}
Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def learnt() -> dict[str, Any]:
    """A byte-level tokenizer."""
    tokenizer = BytePairs(vocab_size=270, min_frequency=2)
    tokenizer.fit([TEXT])
    found: dict[str, Any] = json.loads(tokenizer.files()["tokenizer.json"])
    return found


def prepared(folder: Path, content: bytes, text: str = TEXT) -> Dataset:
    """The text by the tokenizer of a folder with this tokenizer.json."""
    (folder / "mine").mkdir(exist_ok=True)
    (folder / "mine" / "tokenizer.json").write_bytes(content)
    (folder / "text.txt").write_text(text)
    corpus = TextFile(str(folder / "text.txt"), SHARES)
    return prepare(corpus, HuggingFace(str(folder / "mine")), Assets((), folder / "cache"))


def of_words(vocabulary: dict[str, int], **model: Any) -> Change:
    def change(description: dict[str, Any]) -> None:
        description["pre_tokenizer"] = {"type": "Whitespace"}
        description["model"] = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"}
        description["model"] |= model

    return change


def of_pieces(description: dict[str, Any]) -> None:
    of_words({"green": 0, "##s": 1})(description)
    description["model"] |= {"type": "WordPiece", "continuing_subword_prefix": "##"}
    description["model"] |= {"max_input_chars_per_word": 100}


def by_chance(description: dict[str, Any]) -> None:
    description["model"] = {"type": "Unigram", "vocab": [["g", -1.0]], "unk_id": None}


BROKEN: dict[str, tuple[Change, str]] = {
    "no unknown token": (of_words({"green": 0, "wall": 1}), "can't encode the text: "),
    "no unknown piece": (of_pieces, "can't encode the text: "),
    "no unknown id": (by_chance, "can't encode the text: "),
    "no ids": (of_words({}), "ids from 0 to -1 can't be used"),
    "no model": (lambda found: found.pop("model"), "is not a tokenizer.json: KeyError: 'model'"),
    "a model of no kind": (lambda found: found.update(model=7), "is not a tokenizer.json: "),
    "unknown kind": (lambda found: found["model"].update(type="Magic"), "is not a tokenizer.json"),
    "a pattern that is none": (
        lambda found: found.update(
            pre_tokenizer={
                "type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False
            }
        ),
        "is not a tokenizer.json: ",
    ),
    "drops all": (
        lambda found: found.update(
            normalizer={"type": "Replace", "pattern": {"Regex": "."}, "content": ""}
        ),
        "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_one_is_refused_in_one_line(
    kind: str, tmp_path: Path, learnt: dict[str, Any]
) -> None:
    change, words = BROKEN[kind]
    broken = json.loads(json.dumps(learnt))
    change(broken)
    if kind == "drops all":
        assert len(prepared(tmp_path, json.dumps(broken).encode()).train.ids) == 0
        return
    with pytest.raises(UsageError) as error:
        prepared(tmp_path, json.dumps(broken).encode())
    assert words in str(error.value)
    assert "\n" not in str(error.value)


NONE = [b"", b"null", b"[]", b"{", b"\xff", b'{"model": {"vocab": 1}}']


@pytest.mark.parametrize("content", NONE)
def test_what_is_none_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"tokenizer\.json can't be used: it is not a ") as error:
        prepared(tmp_path, content)
    assert "\n" not in str(error.value)


def test_one_that_cuts_fills_and_draws_works_all_the_same(
    tmp_path: Path, learnt: dict[str, Any]
) -> None:
    """Truncation, padding and dropout are for training batches of other libraries."""
    changed = json.loads(json.dumps(learnt))
    changed["truncation"] = {
        "direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0
    }  # fmt: skip
    changed["padding"] = {
        "strategy": {"Fixed": 4096}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "!",
    }  # fmt: skip
    changed["model"]["dropout"] = 0.5
    dataset = prepared(tmp_path, json.dumps(changed).encode())
    plain = prepared(tmp_path, json.dumps(learnt).encode())
    assert dataset.tokenizer.lossless
    assert dataset.train.ids.tolist() == plain.train.ids.tolist()
    assert dataset.tokenizer.decode(dataset.train.ids) == TEXT[: dataset.train.bytes]


def test_its_file_is_kept_byte_for_byte(tmp_path: Path, learnt: dict[str, Any]) -> None:
    """Its digest is of the file, not of what some release of a library makes of it."""
    content = json.dumps(learnt, indent=7).encode() + b"\n"
    tokenizer = prepared(tmp_path, content).tokenizer
    assert tokenizer.files() == {"tokenizer.json": content}
    tokenizer.save(tmp_path / "saved")
    assert (tmp_path / "saved" / "tokenizer.json").read_bytes() == content
    again = HuggingFace("anything")
    again.load(tmp_path / "saved")
    assert again.digest == tokenizer.digest


LETTERS = "".join(random.Random(1).choices("ACGT", k=40 * LONGEST_WORD))


@pytest.mark.parametrize("text", [LETTERS, "a" * 40_000, " " * 40_000, "é" * 20_000])
def test_a_long_word_is_learnt_in_parts(text: str) -> None:
    """Nothing that is learnt spans two parts, and the text comes back. The library's time for the
    whole grows with the square: 2 s for this word, minutes for ten of them."""
    tokenizer = BytePairs(vocab_size=300)
    tokenizer.fit([text])
    assert tokenizer.lossless
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert max(map(len, tokenizer.pieces)) <= LONGEST_WORD
    ends = tokenizer.token_bytes[tokenizer.encode(text)].cumsum()
    assert set(range(LONGEST_WORD, 40 * LONGEST_WORD + 1, LONGEST_WORD)) <= set(ends.tolist())
    assert any(f"more than {LONGEST_WORD} bytes" in note for note in tokenizer.notes())
    assert tokenizer.last_safe_cut(f"{text}a b") > 0


def test_other_texts_are_learnt_as_ever() -> None:
    """To the byte: what the library learns by itself."""
    text = TEXT + "x" * (LONGEST_WORD - 1) + " y" * 300
    ours = BytePairs(vocab_size=300)
    ours.fit([text])
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, min_frequency=2, show_progress=False,
        initial_alphabet=list(_BYTES),
    )  # fmt: skip
    theirs.train_from_iterator([text], trainer)
    assert ours.files()["tokenizer.json"] == theirs.to_str().encode()
    assert not any("in parts" in note for note in ours.notes())
