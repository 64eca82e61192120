"""Every tokenizer in conf/tokenizer/, on the real corpus and on text made to break it."""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import regex  # type: ignore[import-untyped]
import tiktoken.load
import tiktoken.registry
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.cli.hydra_app import compose
from harness.common.errors import UsageError
from harness.common.paths import CONF, REPOSITORY
from harness.compute.device import Compute
from harness.config.settings import Settings, read_settings
from harness.data import assets as assets_module
from harness.data.assets import Assets
from harness.data.corpus import Text, TextFile
from harness.data.dataset import Dataset, prepare
from harness.data.encoded import Split
from harness.evaluation.score import score_split
from harness.runs.load import load_run
from tests.small_runs import train
from tests.waiting import GUARD
from zoo.language_model import Cache, LanguageModel
from zoo_tokenizers import (
    NotUnicode,
    Tokenizer,
    TokenizerError,
    UnknownCharacter,
    smallest_unsigned,
)
from zoo_tokenizers import text as text_module
from zoo_tokenizers.characters import Characters
from zoo_tokenizers.huggingface import BytePairs, HuggingFace
from zoo_tokenizers.sentencepiece import SentencePiece
from zoo_tokenizers.text import last_word_start

SHARES = [0.8, 0.1, 0.1]
# Name: the file in conf/tokenizer and what is changed in it.
ON_THE_CORPUS = {
    "char": ["tokenizer=char"],
    "bytes": ["tokenizer=bytes"],
    "sentencepiece": ["tokenizer=sentencepiece"],
    "unigram": ["tokenizer=sentencepiece", "tokenizer.model_type=unigram"],
    "p50k": ["tokenizer=p50k"],
    "gpt2": ["tokenizer=gpt2"],
    "cl100k": ["tokenizer=cl100k"],
    "tiktoken": ["tokenizer=tiktoken", "tokenizer.encoding=p50k_edit"],
    "bert": ["tokenizer=bert"],
    "hf": ["tokenizer=hf", "tokenizer.name=google-bert/bert-base-uncased"],
    "bpe": ["tokenizer=bpe"],
}
VOCABULARIES = {
    "char": 65,
    "bytes": 256,
    "sentencepiece": 31_279,  # of the 32,000 asked for
    "unigram": 9_827,
    "p50k": 50_281,
    "gpt2": 50_257,
    "cl100k": 100_277,
    "tiktoken": 50_284,
    "bert": 30_522,
    "hf": 30_522,
    "bpe": 4_096,
}
LOSSY = {"bert", "hf"}
LOSSLESS = [name for name in ON_THE_CORPUS if name not in LOSSY]
ANY_TEXT = [name for name in LOSSLESS if name != "char"]  # whose vocabulary holds every text

# Characters that one tokenizer or another handles in a special way.
PARTICULAR = (
    *" \n\t\r\0\x0b\x1c\x85\xa0\u1680\u2028\u3000\ufeff\u200b",
    *"aZé日1٣²!?'/_-.,\u0301",
    *"\u2581\u2585\ufffd\U0001f600\U0010ffff",
    *("'s", "'LL", "  ", "\n\n", "\r\n", "!\n/", "<s>", "<0x0A>", "<|endoftext|>", "[CLS]", "ſ"),
)
texts = st.lists(st.one_of(st.sampled_from(PARTICULAR), st.characters(exclude_categories=["Cs"])))
any_text = texts.map("".join)
stray = st.sampled_from([chr(0xDC00 + byte) for byte in (0x80, 0xBF, 0xC3, 0xE2, 0xFF)])
# As a file can hold it: bytes that are not UTF-8 among the text.
any_file = (
    st.lists(st.one_of(st.sampled_from(PARTICULAR), stray))
    .map("".join)
    .map(lambda text: text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape"))
)


def settings_of(*overrides: str) -> Settings:
    return read_settings(compose(list(overrides)))


def tokenizer_of(*overrides: str) -> Tokenizer:
    return settings_of(*overrides).build("tokenizer", Tokenizer)


def fitted(tokenizer: Tokenizer, text: str) -> Tokenizer:
    tokenizer.fit([text])
    return tokenizer


@pytest.fixture(scope="session")
def datasets(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    """The corpus by each tokenizer, made when it is first asked for."""
    cache = tmp_path_factory.mktemp("datasets")

    class Made(dict[str, Dataset]):
        def __missing__(self, name: str) -> Dataset:
            settings = settings_of(*ON_THE_CORPUS[name])
            self[name] = prepare(
                TextFile(str(assets / "tiny_shakespeare.txt"), SHARES),
                settings.build("tokenizer", Tokenizer),
                Assets((assets,), cache),
            )
            return self[name]

    return Made()


def parts_of(dataset: Dataset) -> list[Split]:
    return [part for part in (dataset.train, dataset.val, dataset.test) if part is not None]


# The interface, kept by all


def test_every_file_in_conf_is_tried() -> None:
    files = {path.stem for path in (CONF / "tokenizer").glob("*.yaml")}
    assert files == set(ON_THE_CORPUS) - {"unigram"}


@pytest.mark.parametrize("name", ON_THE_CORPUS)
def test_on_the_corpus(name: str, datasets: dict[str, Dataset], assets: Path) -> None:
    """Exact, in bytes and in text, part by part; or said to be lossy."""
    dataset = datasets[name]
    tokenizer = dataset.tokenizer
    content = (assets / "tiny_shakespeare.txt").read_bytes()
    assert tokenizer.vocab_size == len(tokenizer.pieces) == VOCABULARIES[name]
    assert tokenizer.lossless == (name not in LOSSY)
    assert not tokenizer.leaks
    start = 0
    for part in parts_of(dataset):
        own = content[start : start + part.bytes]
        start += part.bytes
        assert part.ids.dtype == smallest_unsigned(tokenizer.vocab_size)
        assert int(part.ids.max()) < tokenizer.vocab_size
        if tokenizer.lossless:
            assert tokenizer.decode(part.ids) == own.decode()
            assert int(tokenizer.token_bytes[part.ids].sum()) == part.bytes
            assert np.array_equal(tokenizer.encode(own.decode()), part.ids)
    assert start == len(content)


@pytest.mark.parametrize("name", ON_THE_CORPUS)
def test_saved_it_needs_neither_corpus_nor_network(
    name: str, datasets: dict[str, Dataset], tmp_path: Path, no_network: None
) -> None:
    original = datasets[name].tokenizer
    original.save(tmp_path)
    copy = tokenizer_of(*ON_THE_CORPUS[name])
    copy.load(tmp_path)
    assert copy.digest == original.digest
    assert copy.files() == original.files()
    assert list(copy.pieces) == list(original.pieces)
    assert (copy.lossless, copy.leaks) == (original.lossless, original.leaks)
    text = "First Citizen:\nBefore we proceed any further, hear me speak.\n\n   All:\n"
    assert np.array_equal(copy.encode(text), original.encode(text))
    assert copy.decode(copy.encode(text)) == original.decode(original.encode(text))


@pytest.mark.parametrize("name", ["char", "bytes", "sentencepiece", "p50k", "bert", "bpe"])
def test_saved_and_damaged_it_is_refused(
    name: str, datasets: dict[str, Dataset], tmp_path: Path
) -> None:
    datasets[name].tokenizer.save(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        content = path.read_bytes()
        damaged = [content[: len(content) // 2], content[:-9] + b"#" + content[-8:]]
        for changed in damaged if content else [b"x"]:
            path.write_bytes(changed)
            with pytest.raises(TokenizerError):
                tokenizer_of(*ON_THE_CORPUS[name]).load(tmp_path)
        path.unlink()
        with pytest.raises(TokenizerError):
            tokenizer_of(*ON_THE_CORPUS[name]).load(tmp_path)
        path.write_bytes(content)
    tokenizer_of(*ON_THE_CORPUS[name]).load(tmp_path)


@pytest.mark.parametrize("name", ON_THE_CORPUS)
def test_digests_tell_tokenizers_apart(name: str, datasets: dict[str, Dataset]) -> None:
    same = {"bert", "hf"}
    for other in ON_THE_CORPUS:
        equal = datasets[name].tokenizer.digest == datasets[other].tokenizer.digest
        assert equal == (name == other or {name, other} == same)


@pytest.mark.parametrize("name", ON_THE_CORPUS)
def test_any_ids_can_be_decoded(name: str, datasets: dict[str, Dataset]) -> None:
    """A model may sample any id anywhere: half characters, special tokens, gaps."""
    tokenizer = datasets[name].tokenizer
    generator = np.random.default_rng(0)
    everything = np.arange(tokenizer.vocab_size)
    assert isinstance(tokenizer.decode(everything), str)
    for _ in range(20):
        ids = generator.integers(0, tokenizer.vocab_size, 50)
        text = tokenizer.decode(ids)
        assert tokenizer.decode(ids.tolist()) == text
        if tokenizer.lossless:
            assert text.encode("utf-8", "surrogateescape") == b"".join(
                tokenizer.pieces[id_] for id_ in ids
            )


@pytest.mark.parametrize("name", ON_THE_CORPUS)
def test_no_text_gives_no_ids(name: str, datasets: dict[str, Dataset]) -> None:
    tokenizer = datasets[name].tokenizer
    assert tokenizer.encode("").shape == (0,)
    assert tokenizer.encode("").dtype == smallest_unsigned(tokenizer.vocab_size)
    assert tokenizer.decode([]) == ""
    assert tokenizer.decode(tokenizer.encode("")) == ""


# Lossless


@pytest.mark.parametrize("name", ANY_TEXT)
def test_a_thousand_random_strings_come_back(name: str, datasets: dict[str, Dataset]) -> None:
    tokenizer = datasets[name].tokenizer
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
    if name in LOSSY:
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


# Encoding in pieces


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


def joined(tokenizer: Tokenizer, pieces: list[str]) -> list[int]:
    return [id_ for piece in pieces for id_ in tokenizer.encode(piece).tolist()]


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


# Characters that SentencePiece itself would lose


def test_the_sign_for_a_space_is_not_a_space(datasets: dict[str, Dataset]) -> None:
    for name in ("sentencepiece", "unigram"):
        tokenizer = datasets[name].tokenizer
        assert tokenizer.decode(tokenizer.encode("a\u2581b c")) == "a\u2581b c"
        assert len(tokenizer.encode("\u2581")) == 3  # in bytes
        assert b"\n" in tokenizer.pieces
        assert len(tokenizer.encode("\n\n")) == 2


# SentencePiece and byte pairs: what is learnt


def test_sentencepiece_reproduces_the_notes(assets: Path, datasets: dict[str, Dataset]) -> None:
    """Learnt from the whole file: 32,000 pieces, 301,991 tokens. From train alone: 31,279."""
    text = (assets / "tiny_shakespeare.txt").read_text()
    notes_own = fitted(tokenizer_of("tokenizer=sentencepiece"), text)
    assert (notes_own.vocab_size, len(notes_own.encode(text))) == (32_000, 301_991)
    clean = datasets["sentencepiece"]
    assert clean.tokenizer.vocab_size == 31_279
    assert clean.notes() == [
        "the vocabulary has 31279 pieces: the text does not support tokenizer.vocab_size=32000"
    ]


def test_learnt_from_the_whole_file_it_is_said_to_leak(
    assets: Path, tmp_path: Path, datasets: dict[str, Dataset]
) -> None:
    corpus = TextFile(str(assets / "tiny_shakespeare.txt"), SHARES)
    tokenizer = tokenizer_of("tokenizer=sentencepiece", "tokenizer.whole_file=true")
    dataset = prepare(corpus, tokenizer, Assets((), tmp_path))
    assert tokenizer.leaks
    assert tokenizer.vocab_size == 32_000
    assert sum(len(part.ids) for part in parts_of(dataset)) == pytest.approx(301_991, abs=2)
    (note,) = dataset.notes()
    assert "the scores leak" in note
    assert tokenizer.digest != datasets["sentencepiece"].tokenizer.digest


LEARNERS = {
    "char": ["tokenizer=char"],
    "sentencepiece": ["tokenizer=sentencepiece", "tokenizer.vocab_size=400"],
    "unigram": [
        *("tokenizer=sentencepiece", "tokenizer.model_type=unigram", "tokenizer.vocab_size=400"),
    ],
    "bpe": ["tokenizer=bpe", "tokenizer.vocab_size=400"],
}


@pytest.mark.parametrize("name", LEARNERS)
def test_nothing_is_learnt_from_validation_or_test(name: str, tmp_path: Path) -> None:
    train = "the quick brown fox jumps over the lazy dog\n" * 80
    digests = set()
    for number, rest in enumerate(["a cat is sitting on a mat\n" * 30, "ÄÖÜ 日本 zzzyyy\n" * 30]):
        path = tmp_path / str(number)
        path.write_text(train + rest)
        share = len(train.encode()) / path.stat().st_size
        corpus = TextFile(str(path), [share, (1 - share) / 2, (1 - share) / 2])
        tokenizer = tokenizer_of(*LEARNERS[name])
        dataset = prepare(corpus, tokenizer, Assets((), tmp_path / "cache"))
        assert dataset.train.bytes == len(train)
        digests.add(tokenizer.digest)
    assert len(digests) == 1


def learnt_elsewhere(program: str, *arguments: object) -> str:
    """What a program prints in a process of its own, with another hash seed and two threads."""
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=os.environ | {"PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "2", "RAYON_NUM_THREADS": "2"},
        cwd=REPOSITORY, capture_output=True, text=True, timeout=GUARD,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("name", LEARNERS)
def test_what_is_learnt_depends_on_the_text_alone(name: str, tmp_path: Path) -> None:
    """Not on how it arrives, nor on the process: hash seeds, threads, what was learnt before."""
    lines = [f"{n} green bottles, hanging on the wall; if {n % 7} fall…\n" for n in range(300)]
    text = "".join(lines)
    expected = fitted(tokenizer_of(*LEARNERS[name]), text).digest
    generator = random.Random(4)
    places = sorted(generator.randrange(len(text)) for _ in range(40))
    arriving = [text[i:j] for i, j in zip([0, *places], [*places, len(text)], strict=True)]
    again = tokenizer_of(*LEARNERS[name])
    again.fit(iter(arriving))
    assert again.digest == expected
    (tmp_path / "text").write_text(text)
    program = (
        "import sys; from harness.cli.hydra_app import compose; "
        "from harness.config.settings import read_settings; from zoo_tokenizers import Tokenizer\n"
        f"tokenizer = read_settings(compose({LEARNERS[name]!r})).build('tokenizer', Tokenizer)\n"
        "tokenizer.fit([open(sys.argv[1]).read()]); print(tokenizer.digest)"
    )
    assert learnt_elsewhere(program, tmp_path / "text") == expected


def test_a_sample_of_many_lines_is_always_the_same() -> None:
    """Of more lines than input_sentence_size sentencepiece would draw some at random, others in
    each process, whatever its seed."""
    program = (
        "from hashlib import sha256; from zoo_tokenizers.sentencepiece import SentencePiece\n"
        "text = ''.join(sha256(b'%d' % n).hexdigest() + '\\n' for n in range(999))\n"
        "tokenizer = SentencePiece(vocab_size=300)\n"
        "tokenizer._settings['input_sentence_size'] = 200\n"
        "tokenizer.fit([text]); print(tokenizer.digest)"
    )
    assert learnt_elsewhere(program) == learnt_elsewhere(program)


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
@pytest.mark.parametrize("vocab_size", [512, 2000])
def test_sentencepiece_has_the_size_asked_for(
    model_type: str, vocab_size: int, assets: Path
) -> None:
    text = (assets / "tiny_shakespeare.txt").read_text()[:400_000]
    tokenizer = tokenizer_of(
        "tokenizer=sentencepiece",
        f"tokenizer.model_type={model_type}",
        f"tokenizer.vocab_size={vocab_size}",
    )
    assert fitted(tokenizer, text).vocab_size == vocab_size
    assert tokenizer.notes() == []
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_vocabulary_too_small_for_the_characters_is_refused() -> None:
    with pytest.raises(TokenizerError, match=r"smaller than required_chars. 100 vs 269"):
        fitted(SentencePiece(vocab_size=100), "a few words\n" * 9)
    with pytest.raises(TokenizerError, match="can't learn from this text"):
        fitted(SentencePiece(), "\n\n")


def test_byte_pairs_take_what_the_text_supports() -> None:
    tokenizer = fitted(BytePairs(vocab_size=5000), "a few words, and a few more\n" * 9)
    assert 256 < tokenizer.vocab_size < 300
    assert tokenizer.notes() == [
        f"the vocabulary has {tokenizer.vocab_size} ids: the text does not support "
        "tokenizer.vocab_size=5000"
    ]
    assert fitted(BytePairs(vocab_size=256), "a few words").notes() == []


@pytest.mark.parametrize("tokenizer", [SentencePiece(vocab_size=300), BytePairs(vocab_size=300)])
def test_learning_from_text_that_is_not_all_text(tokenizer: Tokenizer) -> None:
    """Stray bytes, SentencePiece's own signs, NUL and lines of any length do not stop it, nor make
    it pass over what stands beside them."""
    line = "ein k\u2581nig \u2585 \udcff \0 und viele wörter " * 60
    fitted(tokenizer, (line + "\n") * 3)
    assert any("nig" in piece.decode(errors="replace") for piece in tokenizer.pieces)
    assert tokenizer.decode(tokenizer.encode(line)) == line


def test_a_text_without_spaces_or_line_breaks_is_learnt_from() -> None:
    tokenizer = fitted(SentencePiece(vocab_size=400), "日本語の文字列" * 2000)
    assert any("日本" in piece.decode(errors="replace") for piece in tokenizer.pieces)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["tokenizer=sentencepiece", "tokenizer.vocab_size=0"], "vocab_size=0 must lie between"),
        (["tokenizer=sentencepiece", "tokenizer.model_type=word"], "one of bpe, unigram"),
        (["tokenizer=sentencepiece", "tokenizer.character_coverage=0"], "character_coverage=0"),
        (["tokenizer=bpe", "tokenizer.vocab_size=255"], "vocab_size=255 must lie between 256"),
        (["tokenizer=bpe", "tokenizer.min_frequency=0"], "min_frequency=0 must be at least 1"),
        (["tokenizer=hf", "tokenizer.name=''"], "name='' must be a folder or a name"),
        (["tokenizer=hf", "tokenizer.name=a/b", "tokenizer.revision=../../x"], "is not a branch"),
        (["tokenizer=tiktoken", "tokenizer.encoding=p50"], "Did you mean p50k_edit or p50k_base?"),
        (["tokenizer=tiktoken", "tokenizer.encoding=xyz"], "It knows cl100k_base, gpt2,"),
        (["tokenizer=tiktoken"], "tokenizer.encoding has no value"),
        (["tokenizer=hf"], "tokenizer.name has no value"),
    ],
)
def test_settings_that_can_not_be_are_refused_at_once(overrides: list[str], message: str) -> None:
    with pytest.raises(UsageError) as error:
        tokenizer_of(*overrides)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


# Published vocabularies, against their own libraries


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **named: object) -> None:
        raise AssertionError(f"the network was asked for: {arguments}")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize("name", ["p50k", "gpt2", "cl100k", "tiktoken", "bert", "hf"])
def test_with_the_mirror_nobody_is_asked(
    name: str, assets: Path, tmp_path: Path, no_network: None
) -> None:
    tokenizer = tokenizer_of(*ON_THE_CORPUS[name])
    tokenizer.fetch(Assets((tmp_path / "nothing here", assets), tmp_path / "cache"))
    assert tokenizer.vocab_size == VOCABULARIES[name]
    assert not (tmp_path / "cache").exists()
    # tiktoken is left as it was.
    assert tiktoken.load.read_file_cached.__module__ == "tiktoken.load"


@pytest.mark.parametrize(
    ("name", "encoding"), [("p50k", "p50k_base"), ("gpt2", "r50k_base"), ("cl100k", "cl100k_base")]
)
def test_ids_are_those_of_tiktoken(
    name: str,
    encoding: str,
    datasets: dict[str, Dataset],
    assets: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(assets / "tiktoken", tmp_path / "tiktoken")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "tiktoken"))
    own = tiktoken.get_encoding(encoding)
    text = (assets / "tiny_shakespeare.txt").read_text()
    tokenizer = datasets[name].tokenizer
    assert own.n_vocab == tokenizer.vocab_size
    assert tokenizer.encode(text).tolist() == own.encode_ordinary(text)
    for id_ in own.encode_ordinary(text)[:1000]:
        assert tokenizer.pieces[id_] == own.decode_single_token_bytes(id_)


def test_text_never_becomes_a_special_token(datasets: dict[str, Dataset]) -> None:
    for name, text in (("p50k", "<|endoftext|>"), ("cl100k", "<|endoftext|>"), ("bert", "[MASK]")):
        tokenizer = datasets[name].tokenizer
        (special,) = [id_ for id_, piece in enumerate(tokenizer.pieces) if piece == text.encode()]
        ids = tokenizer.encode(f"a {text} b")
        assert special not in ids
        assert len(ids) > 3
        assert text in tokenizer.decode([special])


def test_ids_that_an_encoding_leaves_out_have_names(datasets: dict[str, Dataset]) -> None:
    tokenizer = datasets["cl100k"].tokenizer
    assert tokenizer.pieces[100_256] == b"<|100256|>"
    assert tokenizer.pieces[100_257] == b"<|endoftext|>"
    assert tokenizer.decode([100_256]) == "<|100256|>"


PROGRAM = """
import json, sys
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
texts = json.load(sys.stdin)
print(json.dumps([tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]))
"""


def by_auto_tokenizer(folder: Path, texts: list[str]) -> Any:
    """The ids as transformers has them, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)], input=json.dumps(texts),
        env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, timeout=GUARD,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="session")
def bert_folder(assets: Path) -> Path:
    (folder,) = (assets / "hf/hub/models--bert-base-uncased/snapshots").iterdir()
    return folder


def test_ids_are_those_of_auto_tokenizer(
    datasets: dict[str, Dataset], assets: Path, bert_folder: Path
) -> None:
    text = (assets / "tiny_shakespeare.txt").read_text()
    generator = random.Random(5)
    strings = [
        "".join(generator.choice("aB é日\n\t'!1ſǅÀ\u0301😀") for _ in range(30)) for _ in range(50)
    ]
    expected = by_auto_tokenizer(bert_folder, [text, *strings])
    tokenizer = datasets["bert"].tokenizer
    assert tokenizer.encode(text).tolist() == expected[0]
    assert [tokenizer.encode(string).tolist() for string in strings] == expected[1:]


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


def test_a_folder(bert_folder: Path, tmp_path: Path, no_network: None) -> None:
    tokenizer = HuggingFace(str(bert_folder))
    tokenizer.fetch(Assets((), tmp_path))
    assert tokenizer.vocab_size == 30_522


def test_a_folder_without_tokenizer_json_is_converted(
    bert_folder: Path, datasets: dict[str, Dataset], tmp_path: Path, no_network: None
) -> None:
    for name in ("vocab.txt", "config.json", "tokenizer_config.json"):
        shutil.copy(bert_folder / name, tmp_path)
    tokenizer = HuggingFace(str(tmp_path))
    tokenizer.fetch(Assets((), tmp_path))
    text = "First Citizen:\nBefore we proceed any further, hear me speak."
    assert np.array_equal(tokenizer.encode(text), datasets["bert"].tokenizer.encode(text))


def test_a_folder_that_holds_no_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(TokenizerError, match="AutoTokenizer can't load"):
        HuggingFace(str(tmp_path)).fetch(Assets((), tmp_path))
    (tmp_path / "tokenizer.json").write_text('{"an error": "page"}')
    with pytest.raises(TokenizerError, match=r"tokenizer\.json can't be used"):
        HuggingFace(str(tmp_path)).fetch(Assets((), tmp_path))


def test_a_revision_of_the_hubs_own_cache(
    bert_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None
) -> None:
    repository = tmp_path / "hub/models--me--mine"
    shutil.copytree(bert_folder, repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc\n")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    for revision in ("main", "abc"):
        tokenizer = HuggingFace("me/mine", revision)
        tokenizer.fetch(Assets((), tmp_path / "cache"))
        assert tokenizer.vocab_size == 30_522


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("p50k", ["ec7223a39ce59f226a68acc30dc1af2788490e15", "p50k_base.tiktoken", "94b5ca7d"]),
        ("cl100k", ["9b5ad71b2ce5302211f9c61530b329a4922fc6a4", "cl100k_base.tiktoken"]),
        ("bert", ["tokenizer.json", "https://huggingface.co/bert-base-uncased/", "cc9c03ce"]),
    ],
)
@pytest.mark.parametrize("network", ["refuses", "hangs"])
def test_without_the_mirror_the_error_says_what_to_do(
    name: str, named: list[str], network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError("Name or service not known")

    answer = threading.Event()

    def hang(*arguments: object, **options: object) -> None:
        answer.wait(GUARD)

    monkeypatch.setattr("urllib.request.urlopen", refuse if network == "refuses" else hang)
    monkeypatch.setattr(assets_module, "CONNECT_SECONDS", 0.3)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "nothing here"))
    with pytest.raises(UsageError) as error:
        tokenizer_of(*ON_THE_CORPUS[name]).fetch(Assets((tmp_path / "mirror",), tmp_path / "cache"))
    answer.set()  # nobody waited for it
    message = str(error.value)
    assert "\n" not in message
    folder = tmp_path / "mirror" / ("hf/hub/models--" if name == "bert" else "tiktoken/")
    for part in [*named, f"save it as {folder}"]:
        assert part in message
    assert not (tmp_path / "mirror").exists()


@pytest.mark.parametrize("name", ["p50k", "bert"])
def test_a_vocabulary_of_the_wrong_digest_is_refused(
    name: str, assets: Path, tmp_path: Path, no_network: None
) -> None:
    mirror = tmp_path / "mirror"
    shutil.copytree(assets / "tiktoken", mirror / "tiktoken")
    shutil.copytree(assets / "hf", mirror / "hf")
    names = ("ec7223a39ce59f226a68acc30dc1af2788490e15", "tokenizer.json")
    paths = [path for path in mirror.rglob("*") if path.name in names]
    for path in paths:
        path.chmod(0o644)
        path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises((UsageError, TokenizerError), match="is not the expected file: its SHA-256"):
        tokenizer_of(*ON_THE_CORPUS[name]).fetch(Assets((mirror,), tmp_path / "cache"))
    assert all(path.exists() for path in paths)  # a mirror is not ours to tidy


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


# A run and its tokenizer


def test_a_run_is_refused_another_tokenizer(finished_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    assert load_run(run, "best", "cpu", []).tokenizer.vocab_size > 0
    fitted(Characters(), "another alphabet").save(run / "tokenizer")
    with pytest.raises(UsageError, match="is not the one the checkpoint was trained with"):
        load_run(run, "best", "cpu", [])
    (run / "tokenizer/characters.txt").write_text("abc")
    with pytest.raises(UsageError, match="was changed"):
        load_run(run, "best", "cpu", [])


SMALL = {
    "bigram": [],
    "mlp": ["model.n_hidden=16", "model.n_embd=8"],
    "wavenet": [
        *("model.n_stack=1", "model.n_embd=8", "model.channels_residual=8"),
        *("model.channels_gate=8", "model.channels_skip=8"),
    ],
    "gpt": ["model.n_layer=1", "model.n_head=2", "model.n_embd=8"],
    "megabyte": ["model.n_layer_global=1", "model.n_layer_local=1", "model.n_embd_global=32"],
}


@pytest.mark.parametrize("tokenizer", ["char", "bytes", "sentencepiece", "p50k", "bert"])
@pytest.mark.parametrize("model", SMALL)
def test_every_architecture_trains_with_every_tokenizer(
    model: str, tokenizer: str, assets: Path, tmp_path: Path, no_network: None
) -> None:
    chosen = [f"model={model}", *SMALL[model], f"tokenizer={tokenizer}", f"assets=[{assets}]"]
    if model == "bigram" and tokenizer in ("p50k", "bert"):
        chosen.append("model.n_embd=8")  # the table of all pairs would take 10 or 4 GB, trained 40
    assert train(tmp_path / "job", *chosen, "train.steps=2", "eval.every=2", "eval.prompt=a") == 0
    summary = json.loads((tmp_path / "job/run/summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["lossless"] == (tokenizer != "bert")
    assert (summary["test"]["bits_per_byte"] is None) == (tokenizer == "bert")
    assert summary["leaks"] is False
    assert (summary["lost"] is None) == (tokenizer != "bert")
    # Untrained, a model is about as good as a uniform one: the number is in the right currency.
    assert summary["test"]["nats_per_token"] == pytest.approx(
        math.log(summary["vocab_size"]), rel=0.2
    )


# The package


def test_the_package_knows_nothing_of_the_harness() -> None:
    program = (
        "import sys, pkgutil, importlib, zoo_tokenizers\n"
        "for module in pkgutil.iter_modules(zoo_tokenizers.__path__):\n"
        "    importlib.import_module('zoo_tokenizers.' + module.name)\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('harness', 'zoo', 'torch',"
        " 'transformers', 'huggingface_hub')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tokenizers'}"},
    )  # fmt: skip
    assert done.stdout.strip() == "[]", done.stderr


def test_the_name_tokenizers_is_hugging_faces() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import tokenizers; print(tokenizers.Tokenizer.__module__)"],
        capture_output=True, text=True, cwd=REPOSITORY,
    )  # fmt: skip
    assert done.stdout.strip() == "tokenizers", done.stderr
    assert not (REPOSITORY / "tokenizers/__init__.py").exists()
