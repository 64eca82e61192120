"""What every tokenizer in conf/tokenizer/ keeps: its interface, its vocabulary, its files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.data.dataset import Dataset
from tests.data.datasets import parts_of
from tests.zoo_tokenizers.building import LOSSY, ON_THE_CORPUS, VOCABULARIES, tokenizer_of
from zoo_tokenizers import TokenizerError, smallest_unsigned


def test_what_is_known_is_of_files_that_there_are() -> None:
    assert set(VOCABULARIES) <= set(ON_THE_CORPUS)
    assert len(ON_THE_CORPUS) >= 11


@pytest.mark.parametrize("name", ON_THE_CORPUS)
def test_on_the_corpus(name: str, datasets: dict[str, Dataset], assets: Path) -> None:
    """Exact, in bytes and in text, part by part; or said to be lossy."""
    dataset = datasets[name]
    tokenizer = dataset.tokenizer
    content = (assets / "tiny_shakespeare.txt").read_bytes()
    assert tokenizer.vocab_size == len(tokenizer.pieces)
    if name in VOCABULARIES:
        assert tokenizer.vocab_size == VOCABULARIES[name]
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
