"""Parquet and Arrow files: each row of the column is a text."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from harness.common.errors import UsageError
from harness.data import sources
from harness.data.assets import Assets
from harness.data.corpus import JoinedText, Text, TextFile
from tests.data.datasets import SHARES


def texts_in(folder: Path, path: Path, errors: str = "strict", field: str = "text") -> Text:
    return TextFile(str(path), SHARES, errors, field).read(Assets((), folder / "cache"))


def table(path: Path, **columns: Any) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path.parent.mkdir(exist_ok=True)
    parquet.write_table(pyarrow.table(columns), path, row_group_size=2)
    return path


def test_rows_are_texts_in_their_order(tmp_path: Path) -> None:
    records = ["Ähm", "", "two\nlines", "日本", "last"]
    table(tmp_path / "shards" / "a.parquet", number=[1, 2, 3, 4, 5], text=records)
    table(tmp_path / "shards" / "b.parquet", text=["more"])
    text = texts_in(tmp_path, tmp_path / "shards")
    assert isinstance(text, JoinedText)
    joined = "\n\n".join(filter(None, [*records, "more"]))
    assert text.read(0, text.size).decode() == joined
    assert (text.counts["files"], text.counts["texts"], text.counts["empty"]) == (2, 6, 1)


def test_streams_of_arrow_are_read(tmp_path: Path) -> None:
    """As `Dataset.save_to_disk` of Hugging Face's library writes them."""
    pyarrow = pytest.importorskip("pyarrow")
    held = pyarrow.table({"id": [1, 2, 3], "text": ["a", "", "日本"]})
    path = tmp_path / "data-00000-of-00001.arrow"
    with pyarrow.ipc.new_stream(path, held.schema) as writer:
        writer.write_table(held, max_chunksize=2)
    text = texts_in(tmp_path, path)
    assert text.read(0, text.size).decode() == "a\n\n日本"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UsageError, match="is not what its name says"):
        texts_in(tmp_path, path)


def test_many_batches_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "ROWS_AT_A_TIME", 3)
    records = [str(number) for number in range(10)]
    text = texts_in(tmp_path, table(tmp_path / "p" / "a.parquet", body=records), field="body")
    assert text.read(0, text.size).decode() == "\n\n".join(records)


def test_bytes_that_are_no_text_are_named_or_replaced(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    wrong = pyarrow.array([b"a", b"b\xff"]).view(pyarrow.string())  # nobody looks
    path = table(tmp_path / "p" / "a.parquet", text=wrong)
    with pytest.raises(UsageError, match="row 2 is not UTF-8: byte 0xff at byte offset 1"):
        texts_in(tmp_path, path)
    text = texts_in(tmp_path, path, "replace")
    assert text.read(0, text.size).decode() == "a\n\nb�"
    assert text.counts["replaced"] == 1


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"texts": ["a"]}, "no field 'text'; data.field should be one of 'texts'"),
        ({"text": [1]}, "the field text is no text, but int64"),
        ({"text": ["a", None]}, "row 2: the field text is no text: None"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, columns: dict, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        texts_in(tmp_path, table(tmp_path / "p" / "a.parquet", **columns))
    assert message in str(refused.value)


@pytest.mark.parametrize("keep", [0, 3, 40, -1])
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, keep: int) -> None:
    path = table(tmp_path / "p" / "a.parquet", text=["a" * 99])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UsageError, match="is not what its name says") as refused:
        texts_in(tmp_path, path)
    assert "\n" not in str(refused.value)


def test_without_pyarrow_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for name in ("a.parquet", "a.txt.zst"):
        (tmp_path / name).write_bytes(b"PAR1")
        with pytest.raises(UsageError, match=r"need pyarrow: pip install 'language-model-zoo\[pa"):
            texts_in(tmp_path, tmp_path / name)


# RFC 8878: a frame of one raw block and the low half of its xxh64.
FRAME = b"\x28\xb5\x2f\xfd\x24\x02" + b"\x11\0\0" + b"ab" + bytes.fromhex("614ad092")


def test_what_a_zstd_file_holds_is_checked(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "a.txt.zst"
    skippable = b"\x50\x2a\x4d\x18\x04\0\0\0none"
    for content, expected in ((FRAME, b"ab"), (skippable + FRAME + FRAME, b"abab"), (b"", b"")):
        path.write_bytes(content)
        text = texts_in(tmp_path, path)
        assert text.read(0, text.size) == expected
    for damaged in (FRAME[:-1], FRAME[:5], FRAME + b"x", FRAME.replace(b"ab", b"ac"), b"text"):
        path.write_bytes(damaged)
        with pytest.raises(UsageError, match="is not what its name says") as refused:
            texts_in(tmp_path, path)
        assert "\n" not in str(refused.value)
