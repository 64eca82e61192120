"""Corpora of documents: how they are read, split and encoded, and where the markers go."""

from __future__ import annotations

import bz2
import gzip
import itertools
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.common.errors import UsageError
from harness.data.assets import Assets
from harness.data.corpus import split_points
from harness.data.dataset import Dataset, prepare, require_length
from harness.data.documents import DocumentText, Lines, lines
from harness.data.encoded import Documents, Split
from harness.referee.certify import tokens_cover
from tests.data.datasets import SHARES, parts_of
from tests.zoo_tokenizers.building import tokenizer_of
from zoo_tokenizers import EndMarker, Tokenizer, WholeTexts
from zoo_tokenizers.bytes import Bytes
from zoo_tokenizers.characters import Characters
from zoo_tokenizers.huggingface import BytePairs

LEARNT = ("bpe", "sentencepiece")
NAMES = [f"{'ab' * (number % 4)}c{number}" for number in range(50)]


def dataset_of(
    folder: Path,
    content: bytes | list[str],
    tokenizer: Tokenizer,
    shuffle: int | None = None,
    shares: list[float] = SHARES,
) -> Dataset:
    if isinstance(content, list):
        content = "\n".join(content).encode()
    (folder / "lines.txt").write_bytes(content)
    corpus = Lines(str(folder / "lines.txt"), shares, shuffle)
    return prepare(corpus, EndMarker(tokenizer), Assets((), folder / "cache"))


def documents_of(dataset: Dataset) -> list[list[str]]:
    """The documents of each part, decoded from between the markers."""
    found = []
    for part in parts_of(dataset):
        assert part.documents is not None
        borders = part.documents.borders.tolist()
        assert borders[0] == 0
        assert borders[-1] == len(part.ids) - 1
        assert (part.ids[borders] == dataset.tokenizer.marker).all()
        pairs = itertools.pairwise(borders)
        found.append([dataset.tokenizer.decode(part.ids[a + 1 : b]) for a, b in pairs])
    return found


@given(st.lists(st.text(st.characters(exclude_characters="\n\r"), min_size=1), max_size=9))
def test_lines_are_documents(texts: list[str]) -> None:
    expected = [text.encode("utf-8", "surrogatepass") for text in texts]
    for line_break in (b"\n", b"\r\n"):
        content = line_break.join(expected)
        assert lines(content) == (expected or [b""])
        assert lines(content + line_break) == (expected or [b""])


@pytest.mark.parametrize("tokenizer", [Bytes, Characters, BytePairs])
def test_every_document_is_in_one_part_and_whole(
    tmp_path: Path, tokenizer: type[Tokenizer]
) -> None:
    texts = [*NAMES, "é", "a\rb", "<|endoftext|>", "\ufeffx\0"]
    dataset = dataset_of(tmp_path, texts, tokenizer())
    train, val, test = documents_of(dataset)
    assert (len(train), len(val), len(test)) == (43, 5, 6)  # of 54, rounded down
    assert train == texts[:43]
    if tokenizer is not Characters:  # which lacks some that train lacks
        assert train + val + test == texts
    for part in parts_of(dataset):
        assert tokens_cover(dataset, part, dataset.tokenizer).result == "passed"
    if tokenizer is Bytes:
        ids, at = dataset.train.ids.copy(), len(train[0]) + 1
        ids[[at, at + 1]] = ids[[at + 1, at]]  # a marker one byte too late
        moved = Split(ids, dataset.train.bytes, {}, Documents(np.flatnonzero(ids == 256)))
        found = tokens_cover(replace(dataset, train=moved), moved, dataset.tokenizer)
        assert (found.result, "not where the documents end" in found.words) == ("failed", True)
    again = dataset_of(tmp_path, texts, tokenizer())  # from the cache
    assert documents_of(again) == [train, val, test]
    assert again.digest == dataset.digest


def test_the_shuffle_is_pythons(tmp_path: Path) -> None:
    expected = list(NAMES)
    random.seed(42)
    random.shuffle(expected)  # as in makemore's lectures
    train, val, test = documents_of(dataset_of(tmp_path, NAMES, Bytes(), shuffle=42))
    assert train + val + test == expected
    assert expected != NAMES


def test_names_are_split_as_in_the_lectures(assets: Path, tmp_path: Path) -> None:
    """182,625, 22,655 and 22,866 examples, printed in the third, the first of them of yuheng."""
    if not (assets / "names.txt").exists():
        pytest.skip("names.txt is not in the asset path")
    dataset = dataset_of(tmp_path, (assets / "names.txt").read_bytes(), Characters(), 42)
    assert [len(part.ids) - 1 for part in parts_of(dataset)] == [182_625, 22_655, 22_866]
    assert documents_of(dataset)[0][:3] == ["yuheng", "diondre", "xavien"]
    assert dataset.tokenizer.vocab_size == 27


def test_empty_lines_are_counted_and_no_documents(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, b"\na\n\n\r\nb\nc\nd\n", Bytes(), shares=[0.5, 0.25, 0.25])
    assert documents_of(dataset) == [["a", "b"], ["c"], ["d"]]
    assert "3 empty documents are left out" in dataset.notes()
    with pytest.raises(UsageError, match="there are no documents"):
        dataset_of(tmp_path, b"\n\n", Bytes())
    with pytest.raises(UsageError, match="the val split has no documents"):
        require_length(dataset_of(tmp_path, ["a", "b", "c"], Bytes()), 8)
    with pytest.raises(UsageError, match="the train split is empty"):
        dataset_of(tmp_path, ["a"], Bytes())


def test_a_file_that_memory_might_not_hold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZOO_LIMITS", "1e-9")
    with pytest.raises(UsageError, match="more than 4 bytes, and documents are held in memory"):
        dataset_of(tmp_path, ["abc", "d"], Bytes())


def test_a_divider_may_be_any_text(tmp_path: Path) -> None:
    path = tmp_path / "stories.txt"
    path.write_text("<|end|>one\ntwo<|end|>\nthree<|end|><|end|>four <|end")
    corpus = Lines(str(path), [0.4, 0.3, 0.3], divider="<|end|>")
    for each in (corpus, corpus.moved_to(path)):
        dataset = prepare(each, EndMarker(Bytes()), Assets((), tmp_path / "cache"))
        assert documents_of(dataset) == [["one\ntwo"], ["\nthree"], ["four <|end"]]
        assert "2 empty documents are left out" in dataset.notes()
    with pytest.raises(ValueError, match="divides nothing"):
        Lines(str(path), SHARES, divider="")


def test_documents_are_in_any_number_of_files_and_records(tmp_path: Path) -> None:
    """Packed or not; what is not read of a folder is said. Bytes of lines stay as they are."""
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "a.txt.gz").write_bytes(gzip.compress(b"\xffone\r\ntwo\n"))
    (folder / "b.jsonl.bz2").write_bytes(bz2.compress(b'{"body": "3\\n3"}\n{"body": ""}\n'))
    (folder / "c.csv").write_text('body\n"four"\n')
    (folder / ".hidden").touch()
    corpus = Lines(str(folder), [1.0, 0.0, 0.0], field="body")
    for each in (corpus, corpus.moved_to(folder)):
        text = each.read(Assets((), tmp_path / "cache"))
        ends = [0, *text.ends.tolist()]
        found = [text.read(*pair) for pair in itertools.pairwise(ends)]
        assert found == [b"\xffone", b"two", b"3\n3", b"four"]
        assert "1 hidden files and folders" in text.notes()[0]
        assert text.notes()[1] == "1 empty documents are left out"
    (folder / "d.jsonl").write_text('{"text": "five"}')
    with pytest.raises(UsageError, match="line 1 has no field 'body'"):
        corpus.read(Assets((), tmp_path / "cache"))


def test_the_digest_says_where_documents_end() -> None:
    digests = set()
    for documents in ([b"ab", b"c"], [b"a", b"bc"], [b"abc"]):
        text = DocumentText(documents)
        whole, _ = text.spans(split_points(text, [1.0, 0.0, 0.0]))
        digests.add(whole.sha256)
    assert len(digests) == 3


# Tokenizers


@pytest.mark.parametrize("name", ["bytes", "bpe", "gpt2", "sentencepiece"])
def test_a_marker_is_an_id_that_no_text_becomes(name: str, assets: Path) -> None:
    """Nor do the specials <|endoftext|> of gpt2 and </s> of sentencepiece: they are text."""
    own = tokenizer_of(f"tokenizer={name}", *["tokenizer.vocab_size=300"] * (name in LEARNT))
    if name == "gpt2" and not (assets / "tiktoken").exists():
        pytest.skip("its vocabulary is not in the asset path")
    own.fetch(Assets.of([str(assets)], None))
    own.fit(NAMES * 20)
    marked = EndMarker(own)
    assert marked.marker == own.vocab_size == marked.vocab_size - 1
    for text in ("<|endoftext|>", "</s>", "<s>", "<unk>", "\0", ""):
        ids = marked.encode(text)
        assert marked.marker not in ids
        assert len(ids) > 1 or len(text) < 2  # pieces of it, no special
        assert marked.decode([marked.marker, *ids, marked.marker]) == text
    assert marked.token_bytes[marked.marker] == 0
    assert marked.digest != own.digest


def test_a_saved_tokenizer_knows_whether_it_has_a_marker(tmp_path: Path) -> None:
    marked = EndMarker(Characters())
    marked.fit(WholeTexts(["ab", "c"]))
    marked.save(tmp_path)
    again = EndMarker(Characters())
    again.load(tmp_path)
    assert again.digest == marked.digest
    assert again.pieces == (b"a", b"b", b"c", b"")
    with pytest.raises(ValueError, match="was changed"):
        Characters().load(tmp_path)


def test_a_vocabulary_is_learnt_from_train_documents_one_by_one(tmp_path: Path) -> None:
    """No piece reaches from one document into the next, and none is of validation or test."""
    train, held_out = ["xy"] * 80, ["zq"] * 20
    for name, tokenizer in (
        ("bpe", BytePairs(vocab_size=300)),
        ("sentencepiece", tokenizer_of("tokenizer=sentencepiece", "tokenizer.vocab_size=300")),
    ):
        (tmp_path / name).mkdir()
        dataset = dataset_of(tmp_path / name, train + held_out, tokenizer)
        pieces = set(dataset.tokenizer.pieces)
        assert b"xy" in pieces
        assert not {b"yx", b"xyx", b"xyxy", b"zq"} & pieces


def test_a_tokenizer_that_gives_the_markers_id_is_refused(tmp_path: Path) -> None:
    class Wrong(Bytes):
        def encode(self, text: str) -> np.ndarray:
            return super().encode(text).astype(np.int64) + 256 - ord("a")

    with pytest.raises(UsageError, match="returned id 256"):
        dataset_of(tmp_path, ["a"] * 10, Wrong())


def test_a_byte_that_is_no_text_is_named_with_its_document(tmp_path: Path) -> None:
    for line in range(10):  # of train while it is learnt, of others when they are encoded
        content = [b"a"] * 10
        content[line] = b"a\xff"
        with pytest.raises(UsageError, match=r"byte 0xff of the document 'a.udcff' is not UTF-8"):
            dataset_of(tmp_path, b"\n".join(content), Characters())
