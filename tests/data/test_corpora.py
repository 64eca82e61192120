"""Where texts come from, and files of every kind."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
from pathlib import Path

import numpy as np
import pytest

from harness.common.errors import RunFailure, UsageError
from harness.data import corpus as corpus_module
from harness.data.assets import Assets
from harness.data.corpus import Download, PythonDocs, Text, TextFile, called
from harness.data.dataset import prepare
from tests.data.datasets import SHARES, dataset_of, parts_of
from zoo_tokenizers.bytes import Bytes
from zoo_tokenizers.characters import Characters

# Corpora


def test_python_docs_need_no_download(tmp_path: Path) -> None:
    dataset = prepare(PythonDocs(SHARES), Bytes(), Assets((), tmp_path))
    assert dataset.train.bytes > 300_000
    assert "The standard type hierarchy" in Bytes().decode(dataset.train.ids)
    first = prepare(PythonDocs(SHARES), Bytes(), Assets((), tmp_path / "other"))
    assert first.digest == dataset.digest


def unreachable(fallback: str | None) -> Download:
    url = "http://127.0.0.1:9/corpus.txt"  # the discard port: nobody listens
    return Download("corpus.txt", url, "0" * 64, SHARES, fallback)


def test_the_fallback_is_loud(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = unreachable("python_docs")
    dataset = prepare(corpus, Bytes(), Assets((), tmp_path))
    assert corpus.found == "python_docs"
    assert dataset.digest == prepare(PythonDocs(SHARES), Bytes(), Assets((), tmp_path)).digest
    notice = capsys.readouterr().err
    assert "TRAINING ON THE PYTHON DOCUMENTATION INSTEAD" in notice
    assert "corpus.txt" in notice


def test_no_fallback_unless_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"corpus\.txt is not in the asset path"):
        prepare(unreachable(None), Bytes(), Assets((), tmp_path))
    with pytest.raises(ValueError, match="fallback=other"):
        unreachable("other")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/My book.txt.gz", "My-book"), ("books/", "books"), (["a.txt", "b.txt", "c"], "a+2"),
        ("é_1+2.txt", "é_1+2"), (".hidden", None), ("*.txt", None), ("x\udcff\x1b.txt", "x"),
    ],
)  # fmt: skip
def test_a_text_is_called_by_its_file_s_name(path: str | list[str], name: str | None) -> None:
    assert called(path) == name


@pytest.mark.parametrize("change", ["shorter", "longer", "other"])
def test_a_file_that_changes_under_the_reader_is_not_cached(tmp_path: Path, change: str) -> None:
    path = tmp_path / "text"

    class Meddler(Bytes):
        def encode(self, text: str) -> np.ndarray:
            content = path.read_bytes()
            path.write_bytes(
                {"shorter": b"", "longer": content + b"x", "other": content[::-1]}[change]
            )
            return super().encode(text)

    with pytest.raises(RunFailure, match="text changed while it was being read"):
        dataset_of(tmp_path, b"abc" * 100, Meddler())
    assert not list((tmp_path / "cache").rglob("meta.json"))


def put_in_its_place(path: Path, content: bytes) -> None:
    """Another file of the same name, and of the same size and time."""
    before = path.stat()
    assert len(content) == before.st_size
    path.rename(path.with_name("before"))
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("stage", ["fit", "encode_known", "decode"])
@pytest.mark.parametrize("back", [False, True])
def test_a_file_that_is_replaced_by_one_of_its_size_and_time_poisons_no_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, back: bool
) -> None:
    """Before the vocabulary is learnt, before a part is encoded, before the loss is measured; also
    if the right one is back by the end."""
    right, wrong = b"to be or not to be " * 50, b"TO BE OR NOT TO BE " * 50
    lossy = stage == "decode"
    path, read, reads = tmp_path / "text", Text.read, []

    def reading(self: Text, start: int, stop: int) -> bytes:
        if stop - start > 1:  # not where a character starts
            reads.append(start)
        # Read for the digests: three parts; then to learn from one; then to encode them.
        first = {"fit": 4, "encode_known": 5, "decode": 8}[stage]
        if len(reads) == first:
            put_in_its_place(path, wrong)
        try:
            return read(self, start, stop)
        finally:
            if back and len(reads) == first:
                put_in_its_place(path, right)

    class Lossy(Characters):
        lossless = not lossy

    with monkeypatch.context() as patch:
        patch.setattr(Text, "read", reading)
        with pytest.raises(RunFailure, match="text changed while it was being read"):
            dataset_of(tmp_path, right, Lossy())
    assert not list((tmp_path / "cache").rglob("meta.json"))
    assert bool(list((tmp_path / "cache").rglob("characters.txt"))) == (stage != "fit")
    again = dataset_of(tmp_path, right, Lossy())
    assert again.tokenizer.decode(again.train.ids) in right.decode()


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"text")
    text = TextFile(str(tmp_path / "text"), SHARES).read(Assets((), tmp_path))
    (tmp_path / "text").unlink()
    with pytest.raises(RunFailure, match="text can't be read: No such file"):
        text.read(0, 4)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    corpus = TextFile(str(tmp_path / "none.txt"), SHARES)
    with pytest.raises(UsageError, match=r"data\.path=.*none\.txt can't be read: No such file"):
        prepare(corpus, Bytes(), Assets((), tmp_path))
    with pytest.raises(UsageError, match="can't be read: Is a directory"):
        prepare(TextFile(str(tmp_path), SHARES), Bytes(), Assets((), tmp_path))


# Files of every kind


KINDS = {
    "latin-1": "Ça va? Ähm.".encode("latin-1") * 9,
    "utf-16": "Ähm, 日本".encode("utf-16") * 9,
    "bom": b"\xef\xbb\xbf" + "Ähm, 日本 ".encode() * 9,
    "crlf": b"one\r\ntwo\r\n\rthree\n" * 9,
    "nul": b"a\0b\0\0c" * 9,
    "broken": b"ab\xe6\x97c\xf0\x9f\x98\xe6\x97\xa5\x80\xff" * 9,
    "surrogates": b"\xed\xa0\x80\xed\xb0\x80 a" * 9,
}


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_are_exact_on_any_file(kind: str, tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, KINDS[kind], Bytes())
    assert b"".join(part.ids.tobytes() for part in parts_of(dataset)) == KINDS[kind]


@pytest.mark.parametrize("kind", ["bom", "crlf", "nul"])
def test_characters_are_exact_on_any_unicode(kind: str, tmp_path: Path) -> None:
    tokenizer = Characters()
    dataset = dataset_of(tmp_path, KINDS[kind], tokenizer)
    text = "".join(tokenizer.decode(part.ids) for part in parts_of(dataset))
    assert text.encode() == KINDS[kind]
    assert sum(part.bytes for part in parts_of(dataset)) == len(KINDS[kind])


OTHER_THAN_TEXT = {
    "a gzip file": gzip.compress(b"to be or not to be " * 99),
    "an xz file": lzma.compress(b"to be or not to be " * 99),
    "a bzip2 file": bz2.compress(b"to be or not to be " * 99),
    "UTF-16": "Ähm".encode("utf-16") * 9,
    "a zip file": b"PK\x03\x04and so on" * 9,
}


@pytest.mark.parametrize("what", OTHER_THAN_TEXT)
def test_what_is_no_plain_text_is_said(what: str, tmp_path: Path) -> None:
    """Bytes can be trained on, whatever they are."""
    (note,) = dataset_of(tmp_path, OTHER_THAN_TEXT[what], Bytes()).notes()
    assert note.startswith(f"the text looks like {what}: it is trained on as it is")


@pytest.mark.parametrize("content", [b"B", b"\xef\xbb\xbfa BOM", b"PK and others"])
def test_nothing_is_said_of_plain_text(content: bytes, tmp_path: Path) -> None:
    assert dataset_of(tmp_path, content * 9, Bytes()).notes() == []


def test_characters_name_the_place_of_what_is_none(tmp_path: Path) -> None:
    content = b"a" * 700 + b"\xffb" + b"a" * 298
    with pytest.raises(UsageError, match="byte 0xff at byte offset 700 is not UTF-8"):
        dataset_of(tmp_path, content, Characters())


def test_the_place_is_that_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In validation, and beyond the first block."""
    monkeypatch.setattr(corpus_module, "BLOCK", 64)
    content = "é".encode() * 430 + b"\xe9" + "é".encode() * 70
    with pytest.raises(UsageError, match="byte 0xe9 at byte offset 860 is not UTF-8"):
        dataset_of(tmp_path, content, Characters())
    content = "é".encode() * 130 + b"\xe9" + "é".encode() * 370
    with pytest.raises(UsageError, match="byte 0xe9 at byte offset 260 is not UTF-8"):
        dataset_of(tmp_path, content, Characters())
