"""Lanes of a stream: every token once a pass, from any position on, and nothing held out."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.common.errors import RunFailure, UsageError
from harness.data.assets import Assets
from harness.data.corpus import called
from harness.data.dataset import Dataset, prepare
from harness.data.lane import COUNTS, Lane, Position
from harness.data.read_ahead import ReadAhead
from harness.data.shards import FileShards, Shards, divided
from harness.data.stream import Stream
from harness.training.context import ignore
from zoo_tokenizers import EndMarker, Tokenizer
from zoo_tokenizers.bytes import Bytes
from zoo_tokenizers.characters import Characters

MARKER = 256
TEXTS = [[f"{shard}.{number}" * (1 + number % 7) for number in range(40)] for shard in range(5)]


def write(folder: Path, texts: list[list[str]] = TEXTS) -> str:
    """Shards of lines; the path of all."""
    folder.mkdir(exist_ok=True)
    for number, lines in enumerate(texts):
        (folder / f"{number}.txt").write_text("".join(f"{line}\n" for line in lines))
    return str(folder / "*.txt")


def found(path: str, lanes: int = 2, errors: str = "replace", divider: str | None = None) -> Shards:
    return FileShards.find(path, errors, "text", divider, lanes, buffer=6)


def lane_of(
    shards: Shards,
    number: int = 0,
    held_out: Iterable[str] = (),
    tokenizer: Tokenizer | None = None,
) -> Lane:
    return Lane(
        shards, tokenizer or EndMarker(Bytes()), seed=3, number=number, lanes=shards.lanes,
        rows=shards.buffer, length=9, stride=8,
        held_out=frozenset(sha256(text.encode()).digest() for text in held_out),
    )  # fmt: skip


def in_order(lane: Lane, blocks: Iterable[tuple[dict[str, Any], np.ndarray]]) -> Iterator[int]:
    """The tokens of a lane, each once, its blocks put back in order."""
    for number, (_, rows) in enumerate(blocks):
        back = rows[np.argsort(lane._order(number))]
        assert (back[1:, 0] == back[:-1, -1]).all()  # the last target is the next row's first input
        yield from back[:, :-1].flatten().tolist()


def documents(lane: Lane, count: int) -> list[str]:
    """The first documents of a lane."""
    ids = in_order(lane, lane.blocks(lane.start))
    texts: list[bytearray] = []
    while len(texts) <= count:
        if (id_ := next(ids)) == MARKER:
            texts.append(bytearray())
        else:
            texts[-1].append(id_)
    return [text.decode() for text in texts[:count]]


@given(
    pieces=st.lists(st.text("ab\n\r"), max_size=9),
    divider=st.sampled_from([None, "b", "ab", "aab", "\n\n"]),
)
def test_a_text_is_divided_wherever_it_is_cut(pieces: list[str], divider: str | None) -> None:
    whole = "".join(pieces).split(divider or "\n")
    whole = whole if whole[-1] else whole[:-1]
    expected = whole if divider else [line.removesuffix("\r") for line in whole]
    assert [*divided(pieces, divider)] == expected


@pytest.mark.parametrize("divider", [None, "ab"])
def test_a_document_may_be_all_of_a_large_text(divider: str | None) -> None:
    """Were all of it gone through again for each piece, this would take hours."""
    count = 100_000
    (whole,) = divided(["a" * 40] * count, divider)
    assert len(whole) == 40 * count


@pytest.mark.parametrize("lanes", [1, 2, 3, 5])
def test_each_document_is_read_once_a_pass(tmp_path: Path, lanes: int) -> None:
    """Five shards: after five turns of all lanes, five passes."""
    shards = found(write(tmp_path), lanes)
    read = Counter(text for n in range(lanes) for text in documents(lane_of(shards, n), 5 * 40))
    assert read == Counter({text: lanes for shard in TEXTS for text in shard})
    if lanes == 1:
        first, second = (
            [text[0] for text in documents(lane_of(shards), 400)[at : at + 200 : 40]]
            for at in (0, 200)
        )
        assert sorted(first) == sorted(second) == ["0", "1", "2", "3", "4"]
        assert first != second  # in an order of its own


def test_no_more_lanes_than_shards(tmp_path: Path) -> None:
    assert found(write(tmp_path), lanes=9).lanes == 5


def test_rows_are_shuffled_and_by_seed_lane_and_block(tmp_path: Path) -> None:
    lane = lane_of(found(write(tmp_path)))
    other = (replace(lane, seed=4), replace(lane, number=1))
    orders = {tuple(each._order(block)) for each in (lane, *other) for block in range(3)}
    assert len(orders) == 9
    assert all(sorted(order) == list(range(6)) for order in orders)


@settings(max_examples=20)
@given(block=st.integers(0, 60))
def test_from_any_position_on_the_rest_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, block: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "resumed"
    lane = lane_of(found(write(path)), 1, held_out=["1.4" * 5, "3.39" * 5], tokenizer=KNOWN)
    whole = [*islice(lane.blocks(lane.start), block, block + 3)]
    start = Position(**json.loads(json.dumps(whole[0][0])))
    for (place, rows), (again, same) in zip(whole, lane.blocks(start, block), strict=False):
        assert place == again
        np.testing.assert_array_equal(rows, same)


KNOWN = EndMarker(Characters())
KNOWN.fit(["".join(map(str, range(9))) + "."])  # not 9


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    texts = [["one", "two", "", "two", "n9ne"], ["three", "two", "four"]]
    path = write(tmp_path, texts)
    with (tmp_path / "0.txt").open("ab") as file:
        file.write(b"\xff\xfe\n")
    shards = found(path, lanes=1)
    tokenizer = EndMarker(Characters())
    tokenizer.fit(["onetwhrfu\ufffd"])
    lane = lane_of(shards, held_out=["two"], tokenizer=tokenizer)
    for place, _ in lane._documents(lane.start):
        passes, at = divmod(place.shard, 2)
        if passes and not at and shards.numbered(3, place.shard) == 1:  # which has none of them
            break
    counts = {name: getattr(place, name) // passes for name in COUNTS}
    assert counts == {"documents": 5, "held_out": 3, "empty": 1, "unknown": 1, "replaced": 2}


def test_held_out_documents_are_never_trained_on(tmp_path: Path) -> None:
    """Wherever else they occur, too."""
    texts = [[*shard, TEXTS[0][number], TEXTS[1][7]] for number, shard in enumerate(TEXTS)]
    dataset = stream_of(write(tmp_path / "s", texts), tmp_path, first_bytes=1500)
    val, test = (documents_of(dataset, part) for part in (1, 2))
    assert len(val) >= 5
    assert len(test) >= 5
    assert dataset.shards is not None
    lanes = [
        replace(lane_of(dataset.shards, number), held_out=dataset.held_out()) for number in (0, 1)
    ]
    read = Counter(text for lane in lanes for text in documents(lane, 420))
    assert not set(read) & {*val, *test}
    assert set(read) == {text for shard in texts for text in shard} - {*val, *test}
    assert set(documents_of(dataset, 0)) - {*val, *test} <= set(read)


def documents_of(dataset: Dataset, part: int) -> list[str]:
    return [*dataset.text.strings(*dataset.parts[part][:2])]


def stream_of(path: str | list[str], folder: Path, **options: Any) -> Dataset:
    corpus = Stream(path, [0.6, 0.2, 0.2], shuffle=0, **options)
    return prepare(corpus, EndMarker(Bytes()), Assets((), folder / "cache"))


def test_records_are_documents(tmp_path: Path) -> None:
    for number, texts in enumerate(TEXTS[:2]):
        with gzip.open(tmp_path / f"{number}.jsonl.gz", "wt") as file:
            file.writelines(json.dumps({"text": f"{text}\n\n"}) + "\n" for text in texts)
    lane = lane_of(found(str(tmp_path / "*.gz"), lanes=1))
    assert sorted(documents(lane, 80)) == sorted(f"{t}\n\n" for texts in TEXTS[:2] for t in texts)


def test_the_beginning_is_what_is_split(tmp_path: Path) -> None:
    dataset = stream_of(write(tmp_path / "s"), tmp_path, first_bytes=300)
    first = [text for part in range(3) for text in documents_of(dataset, part)]
    size = sum(map(len, first))
    assert sorted(first) == sorted(TEXTS[0][: len(first)])
    assert 300 <= size < 300 + len(TEXTS[0][len(first) - 1])
    assert any("5 files" in note for note in dataset.notes())
    more = stream_of(write(tmp_path / "s", [*TEXTS, ["new"]]), tmp_path, first_bytes=300)
    assert more.digest == dataset.digest  # what is scored is the same
    assert more.shards is not None
    assert dataset.shards is not None
    assert more.shards.sha256 != dataset.shards.sha256


def test_a_shard_that_has_changed_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path)
    lane = lane_of(found(path))
    start = next(islice(lane.blocks(lane.start), 8, None))[0]
    which = lane.shards.numbered(3, start["shard"])
    name, at = tmp_path / f"{which}.txt", start["document"]
    before = name.read_text()
    lines = before.splitlines(keepends=True)
    assert 0 < at < 39
    for changed in (0, at):  # of the same size
        other = [*lines[:changed], "x" * (len(lines[changed]) - 1) + "\n", *lines[changed + 1 :]]
        name.write_text("".join(other))
        with pytest.raises(RunFailure, match=rf"{which}\.txt has changed since the checkpoint"):
            next(lane.blocks(Position(**start), 8))
    name.write_text("\n" * (len(before) - 8) + "fewer..\n")
    with pytest.raises(RunFailure, match="has changed since the checkpoint"):
        next(lane.blocks(Position(**start), 8))
    name.write_text(before + "more\n")
    with pytest.raises(RunFailure, match="bytes, and had"):
        next(lane.blocks(Position(**start), 8))
    name.write_text(before)
    for wrong in ({"token": 10_000}, {"document": 10_000}):
        with pytest.raises(RunFailure, match="has changed since the checkpoint"):
            next(lane.blocks(Position(**start | wrong), 8))


def test_the_same_stream_lies_elsewhere(tmp_path: Path) -> None:
    stream = Stream("a.txt", [0.5, 0.5, 0.0], 3, "across", "strict", "body", "--", 7, 4, 9)
    moved = stream.moved_to(tmp_path)
    expected = vars(stream) | {"path": str(tmp_path), "found": called(str(tmp_path))}
    assert vars(moved) == expected


def test_what_is_no_stream_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there are no documents"):
        stream_of(write(tmp_path / "empty", [[], [""]]), tmp_path)
    with pytest.raises(RunFailure, match="hold no document to train on"):
        next(
            lane_of(found(write(tmp_path / "few", [["a"], ["b", ""]])), 0, "ab").blocks(Position(0))
        )
    for options, words in (
        ({"rows": "alone"}, "packed or across"),
        ({"divider": ""}, "divides nothing"),
        ({"errors": None}, "strict or replace"),
        ({"lanes": 0}, "lanes=0"),
        ({"first_bytes": 1 << 50}, "held in memory"),
        ({"path": []}, "path is empty"),
    ):
        with pytest.raises(ValueError, match=words):
            Stream(**{"path": "x", "split": [1.0, 0.0, 0.0]} | options)


def test_a_process_reads_what_its_lane_has(tmp_path: Path) -> None:
    """And says what it can't read, and leaves when nobody wants more."""
    path = write(tmp_path)
    (tmp_path / "4.txt").write_bytes(b"good\nb\xe9d\n")
    lane = lane_of(found(path, lanes=1, errors="strict"))
    reader = ReadAhead(lane, lane.start, 0)
    with pytest.raises(UsageError, match=r"4\.txt is not UTF-8: byte 0xe9 at byte offset 6"):
        require_equal(reader, lane)
    reader.close()
    lane = lane_of(found(path))
    dead = ReadAhead(lane, lane.start, 0)
    dead._child.process.kill()
    with pytest.raises(RunFailure, match=r"died \(-9\)"):
        require_equal(dead, lane)
    dead.close()


def require_equal(reader: ReadAhead, lane: Lane) -> None:
    """Does not end but by an error of the reader's."""
    blocks = lane.blocks(lane.start)
    while True:
        (place, rows), (again, same) = reader.next(ignore), next(blocks)
        assert place == again
        np.testing.assert_array_equal(rows, same)
