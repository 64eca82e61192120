"""Files of every format as one text: what comes out of each, and what is refused in words."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.common.errors import RunFailure, UsageError
from harness.data import joined, sources
from harness.data.assets import Assets
from harness.data.corpus import JoinedText, Text, TextFile
from harness.data.dataset import prepare
from tests.data.datasets import SHARES
from zoo_tokenizers.bytes import Bytes


def texts_in(folder: Path, path: object = None, errors: str = "strict", **options: str) -> Text:
    """The text of a path: of all files below `folder`/texts."""
    named = (
        [str(each) for each in path] if isinstance(path, list) else str(path or folder / "texts")
    )
    corpus = TextFile(named, SHARES, errors, **options)
    return corpus.read(Assets((), folder / "cache"))


def whole(text: Text) -> str:
    return text.read(0, text.size).decode()


def write(folder: Path, **contents: bytes | str) -> list[Path]:
    """Files in `folder`/texts; a name's __ is a dot."""
    (folder / "texts").mkdir(exist_ok=True)
    paths = [folder / "texts" / name.replace("__", ".") for name in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return paths


# Which files


def test_a_folder_with_too_many_files_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run from elsewhere may name the root of this machine."""
    write(tmp_path, a__txt="a", b__txt="b", c__txt="c")
    monkeypatch.setattr(sources, "MOST_FILES", 2)
    with pytest.raises(UsageError, match="belongs to more than 2 files"):
        texts_in(tmp_path)


def test_one_plain_file_is_read_where_it_lies(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbfone\r\ntwo\0\n\rthree"  # BOM, CRLF, NUL, a lone CR: text, unchanged
    (path,) = write(tmp_path, a__txt=content)
    for named in (path, tmp_path / "texts", [path], tmp_path / "texts" / "*.txt"):
        text = texts_in(tmp_path, named)
        assert text.read(0, text.size) == content
        assert text.counts == {}
    assert not (tmp_path / "cache").exists()


def test_a_list_a_glob_and_a_folder_are_joined_in_order(tmp_path: Path) -> None:
    b, a, c = write(tmp_path, b__txt="B", a__txt="A", c__md="C")
    (tmp_path / "texts" / "sub").mkdir()
    (tmp_path / "texts" / "sub" / "d.txt").write_text("D")
    folder = tmp_path / "texts"
    for named, expected in (
        (folder, "A\n\nB\n\nC\n\nD"),
        (folder / "*.txt", "A\n\nB"),
        (folder / "**" / "*.txt", "A\n\nB\n\nD"),
        (folder / "**", "A\n\nB\n\nC\n\nD"),
        (folder / "s*", "D"),
        ([b, a], "B\n\nA"),
        ([c, folder / "sub", folder / "[ab].txt"], "C\n\nD\n\nA\n\nB"),
    ):
        text = texts_in(tmp_path, named)
        assert whole(text) == expected
        assert isinstance(text, JoinedText) == (len(expected) > 1)
    odd = folder / "[x].txt"  # a file of this very name comes before what the pattern matches
    odd.write_text("odd")
    assert whole(texts_in(tmp_path, odd)) == "odd"
    assert whole(texts_in(tmp_path, [b, a], separator="")) == "BA"


def test_what_is_not_read_of_a_folder_is_said(tmp_path: Path) -> None:
    """Hidden files and folders and linked folders; a linked file is a file."""
    a, hidden = write(tmp_path, a__txt="A", __hidden="no")
    assert hidden.name == ".hidden"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.txt").write_text("B")
    (a.parent / "folder").symlink_to(tmp_path / "elsewhere")
    (a.parent / "link.txt").symlink_to(tmp_path / "elsewhere" / "b.txt")
    text = texts_in(tmp_path)
    assert whole(text) == "A\n\nB"
    assert text.counts["passed_over"] == 2
    (note,) = text.notes()
    assert note == (
        "2 hidden files and folders and linked folders are not read: "
        f"{hidden}, {a.parent / 'folder'}"
    )


def test_empty_ones_add_nothing_and_are_counted(tmp_path: Path) -> None:
    write(tmp_path, a__txt="", b__txt="B", c__txt="", d__jsonl='{"text": ""}\n{"text": "D"}\n')
    text = texts_in(tmp_path)
    assert whole(text) == "B\n\nD"
    assert text.counts == {"files": 4, "texts": 5, "empty": 3, "replaced": 0, "passed_over": 0}
    assert text.notes() == ["3 of 5 files or records are empty"]


REFUSED_PATHS = {
    "none*.txt": "data.path={folder}/none*.txt names no file",
    "none.txt": "none.txt can't be read: No such file",
    "empty": "data.path={folder}/empty names no file",
    "fifo": "fifo is a pipe or a device, not a file",
}


@pytest.mark.parametrize("named", REFUSED_PATHS)
def test_paths_that_name_nothing(named: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UsageError) as refused:
        texts_in(tmp_path, tmp_path / named)
    assert REFUSED_PATHS[named].format(folder=tmp_path) in str(refused.value)


def test_a_file_that_is_named_twice(tmp_path: Path) -> None:
    a, _ = write(tmp_path, a__txt="A", b__txt="B")
    with pytest.raises(UsageError, match=r"a\.txt is named twice"):
        texts_in(tmp_path, [a, tmp_path / "texts" / "*.txt"])


@pytest.mark.parametrize(
    ("path", "errors", "message"),
    [("", "strict", "empty"), ([], "strict", "empty"), (["a", ""], "strict", "empty"),
     ("a", "ignore", "strict, replace or null"), (["a", "b"], None, "one file alone")],
)  # fmt: skip
def test_settings_that_make_no_sense(
    path: str | list[str], errors: str | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        TextFile(path, SHARES, errors)


# Formats


RECORDS = ["To be,\r\nor not", 'a "quoted", field', "日本\0\ufeff", " ", "x" * 200_000]


def as_csv(records: list[str]) -> str:
    quoted = [record.replace('"', '""') for record in records]
    return "id,text\r\n" + "".join(f'{n},"{text}"\r\n' for n, text in enumerate(quoted))


def as_json_lines(records: list[str]) -> str:
    lines = [
        json.dumps({"text": record, "n": 1}, ensure_ascii=n % 2 == 0)
        for n, record in enumerate(records)
    ]
    return "\n".join([*lines[:2], "", *lines[2:]])


def as_zst(content: bytes) -> bytes:
    """In two frames, as some tools write it."""
    pyarrow = pytest.importorskip("pyarrow")
    half, frames = len(content) // 2, []
    for piece in (content[:half], content[half:]):
        sink = pyarrow.BufferOutputStream()
        with pyarrow.CompressedOutputStream(sink, "zstd") as file:
            file.write(piece)
        frames.append(sink.getvalue().to_pybytes())
    return b"".join(frames)


PACK = {
    "": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress, ".zst": as_zst,
}  # fmt: skip


@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("packed", PACK)
@pytest.mark.parametrize("kind", ["txt", "csv", "jsonl"])
def test_every_format_gives_its_texts(kind: str, packed: str, bom: str, tmp_path: Path) -> None:
    make = {"txt": "\n\n".join, "csv": as_csv, "jsonl": as_json_lines}[kind]
    content = (bom + make(RECORDS)).encode()
    path = tmp_path / f"A.{kind.upper()}{packed}"
    path.write_bytes(PACK[packed](content))
    # At the start of records the mark of byte order is none of theirs; of a text it is a part.
    expected = (bom if kind == "txt" else "") + "\n\n".join(RECORDS)
    text = texts_in(tmp_path, path)
    assert whole(text) == expected
    if kind != "txt":
        assert text.counts["texts"] == len(RECORDS)


@settings(max_examples=40)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_records_of_any_text_come_back(records: list[str]) -> None:
    for kind, make in (("csv", as_csv), ("jsonl", as_json_lines)):
        file = io.BytesIO(make(records).encode())
        found = sources.TextReader("strict", "text").texts(Path(f"a.{kind}"), file)
        assert ["".join(text) for text in found] == records


REFUSED: dict[str, tuple[str, bytes, str]] = {
    "latin-1": ("a.txt", "Ça va".encode("latin-1"), "is not UTF-8: byte 0xc7 at byte offset 0;"),
    "late": ("a.txt", "é".encode() * 70 + b"\xe9", "is not UTF-8: byte 0xe9 at byte offset 140;"),
    "half": ("a.txt", "日本".encode()[:-1], "is not UTF-8: byte 0xe6 at byte offset 3;"),
    "surrogate": ("a.txt", b"a\xed\xa0\x80", "is not UTF-8: byte 0xed at byte offset 1;"),
    "utf-16": ("a.txt", "Ähm".encode("utf-16"), "which looks like UTF-16, is not UTF-8: byte 0xff"),
    "png": ("a.png", b"\x89PNG\r\n", "is not UTF-8: byte 0x89 at byte offset 0;"),
    "packed": ("a.txt", gzip.compress(b"text"), "which looks like a gzip file, is not UTF-8"),
    "in gz": ("a.txt.gz", gzip.compress(b"ab\xff"), "is not UTF-8: byte 0xff at byte offset 2;"),
    "no gz": ("a.txt.gz", b"text", "is not what its name says: Not a gzipped file"),
    "cut": ("a.gz", gzip.compress(b"text" * 99)[:-9], "is not what its name says: Compressed file"),
    "xz": ("a.xz", lzma.compress(b"text" * 99)[:-9], "is not what its name says: Compressed file"),
    "bz2": ("a.bz2", bz2.compress(b"text" * 99)[:-9], "is not what its name says: Compressed file"),
    "zip": ("a.txt.zip", b"", ".zip is not read; unpack it: unzip FILE"),
    "json": ("a.jsonl", b'{"text": "a"}\n{"text"\n', "line 2 is not JSON"),
    "bad bytes": ("a.jsonl", b'{"text": "a"}\n{"text": "\xff"}', "byte 0xff at byte offset 24;"),
    "half \\u": ("a.jsonl", b'{"text": "\\ud83d!"}', "line 1 holds half a character, \\ud83d;"),
    "list": ("a.jsonl", b"[1]", "line 1 is no object with a field data.field=text"),
    "no field": ("a.jsonl", b'{"txt": "a"}', "no field 'text'; data.field should be one of 'txt'"),
    "null": ("a.jsonl", b'{"text": null}', "line 1: the field text is no text: None"),
    "deep": ("a.jsonl", b"[" * 100_000, "line 1 is not JSON"),
    "head": ("a.csv", b"id,texts\n1,a\n", "one of 'id', 'texts'. Did you mean texts?"),
    "more": ("a.csv", b"id,text\n1,a\n2,b,c\n", "line 3 has 3 fields, and the first line 2"),
    "fewer": ("a.csv", b"id,text\n1\n", "line 2 has 1 fields, and the first line 2"),
    "quote": ("a.csv", b'id,text\n1,"a\n', "line 2 is not CSV: unexpected end of data"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_text_is_named(case: str, tmp_path: Path) -> None:
    """With its place and what to do, in one line; nothing is kept."""
    name, content, message = REFUSED[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError) as refused:
        texts_in(tmp_path, tmp_path / name)
    words = str(refused.value)
    assert words.startswith(f"data.path={tmp_path / name}")
    assert message in words
    assert "\n" not in words
    if "byte" in message:
        assert "data.errors=replace puts � in its place, data=bytes takes any" in words
    assert not list((tmp_path / "cache").rglob("*.json"))


@settings(max_examples=60)
@given(st.binary(max_size=60))
def test_replaced_bytes_are_counted(content: bytes) -> None:
    reader = sources.TextReader("replace", "text")
    (text,) = (list(each) for each in reader.texts(Path("a"), io.BytesIO(content)))
    plain = content.decode("utf-8", "surrogateescape")
    stray = [character for character in plain if 0xDC80 <= ord(character) <= 0xDCFF]
    assert reader.replaced == len(stray)
    assert len("".join(text)) == len(plain)
    "".join(text).encode()  # raises for what is no text


def test_what_is_replaced_is_said(tmp_path: Path) -> None:
    write(tmp_path, a__txt=b"a\xffb", b__jsonl=b'{"text": "\\ud83d\xff", "other": "\xff"}')
    text = texts_in(tmp_path, errors="replace")
    assert whole(text) == "a�b\n\n��"
    assert text.counts["replaced"] == 3
    assert text.notes() == ["3 bytes that are not UTF-8 were replaced by � (data.errors)"]
    again = texts_in(tmp_path, errors="replace")  # from the cache
    assert (whole(again), again.counts) == (whole(text), text.counts)


# The cache


def test_the_text_is_made_once_and_made_again_if_it_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, _ = write(tmp_path, a__txt="A", b__txt="B")
    text = texts_in(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(joined, "atomic_write", lambda path: 1 / 0)
        assert whole(texts_in(tmp_path)) == "A\n\nB"
    for name in ("text", "meta.json"):
        (kept,) = (tmp_path / "cache").rglob(name)
        kept.write_bytes(b"{}")
        assert whole(texts_in(tmp_path)) == "A\n\nB"
    a.write_text("C")  # the same size
    os.utime(a, ns=(0, 0))
    assert whole(texts_in(tmp_path)) == "C\n\nB"
    assert whole(text) == "A\n\nB"


def test_a_file_that_changes_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, a__txt="A" * 99, b__txt="B")
    read = sources.TextReader.texts

    def reading(self, path, file):  # noqa: ANN001, ANN202
        content = path.read_bytes()
        path.write_bytes(content.lower())
        yield from read(self, path, file)
        path.write_bytes(content)  # the right one is back by the end

    monkeypatch.setattr(sources.TextReader, "texts", reading)
    with pytest.raises(RunFailure, match=r"a\.txt changed while it was being read; start again"):
        texts_in(tmp_path)
    assert not list((tmp_path / "cache").rglob("text"))


def test_a_runs_folder_has_no_files_of_mine_copied(tmp_path: Path) -> None:
    """It may name any; only the text that the run was trained on is written."""
    write(tmp_path, a__txt="A", b__txt="B")
    corpus = TextFile(str(tmp_path / "texts"), SHARES, "strict")
    for known in (None, "0" * 64):
        assets = Assets((), tmp_path / "cache").of_stranger([], known)
        with pytest.raises(UsageError, match="the text is not the one this run was trained on"):
            corpus.read(assets)
        assert not (tmp_path / "cache").exists()
    digest = prepare(corpus, Bytes(), Assets((), tmp_path / "own")).digest
    assets = Assets((), tmp_path / "cache").of_stranger([], digest)
    assert whole(corpus.read(assets)) == "A\n\nB"


# Any bytes


def test_random_bytes_cost_eight_bits(tmp_path: Path) -> None:
    """By the counts of each byte in train: ln 256 nats, within what their noise costs."""
    content = np.random.default_rng(0).bytes(1 << 18)
    (tmp_path / "noise").write_bytes(content)
    dataset = prepare(TextFile(str(tmp_path / "noise"), SHARES), Bytes(), Assets((), tmp_path))
    assert dataset.test is not None
    chance = (dataset.counts() + 1) / (dataset.train.bytes + 256)
    bits = -np.log2(chance)[dataset.test.ids]
    assert bits.mean() == pytest.approx(8, abs=4 * bits.std() / len(bits) ** 0.5 + 0.001)
    parts = (dataset.train, dataset.val, dataset.test)
    assert b"".join(part.ids.tobytes() for part in parts if part) == content
