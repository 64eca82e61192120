"""What SentencePiece and byte pairs learn: from the train split alone, and always the same."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from harness.common.errors import UsageError
from harness.common.paths import REPOSITORY
from harness.data.assets import Assets
from harness.data.corpus import TextFile
from harness.data.dataset import Dataset, prepare
from tests.data.datasets import SHARES, parts_of
from tests.waiting import GUARD
from tests.zoo_tokenizers.building import fitted, tokenizer_of
from zoo_tokenizers import Tokenizer, TokenizerError
from zoo_tokenizers.huggingface import BytePairs
from zoo_tokenizers.sentencepiece import SentencePiece


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
