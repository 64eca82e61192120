"""Token shards: what was encoded before is trained on as if it were encoded on the way."""

from __future__ import annotations

import os
import shutil
import signal
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.common.errors import RunFailure, UsageError
from harness.data import token_shards, write_tokens
from harness.data.assets import Assets
from harness.data.dataset import Dataset, prepare
from harness.data.lane import Lane
from harness.data.shards import FileShards
from harness.data.stream import Stream
from harness.data.token_shards import MANIFEST, TokenShards
from tests.conftest import Ended
from tests.small_runs import settings
from zoo_tokenizers import EndMarker
from zoo_tokenizers.characters import Characters

TEXTS = [[f"{shard}.{number}" * (1 + number % 7) for number in range(40)] for shard in range(4)]
BOTH = ("data.first_bytes=700", "data.split=[0.6,0.2,0.2]", "data.lanes=2", "tokenizer=char")


def source(folder: Path) -> Path:
    """Shards of lines: one empty, one with what is not UTF-8 and what a tokenizer may lack."""
    place = folder / "source"
    place.mkdir(exist_ok=True)
    for number, lines in enumerate([*TEXTS, []]):
        more = b"\xff9x\n\n" + lines[0].encode() + b"\n" if number == 2 else b""
        content = "".join(f"{line}\n" for line in lines).encode()
        (place / f"{number}.txt").write_bytes(content + more)
    return place


def write(folder: Path, out: str = "out", workers: int = 1, *more: str) -> Path:
    own = settings(folder, "data=stream", f"data.path={source(folder)}", *BOTH, *more)
    write_tokens.write_tokens(own, folder / out, workers)
    return folder / out


def dataset_of(path: Path, folder: Path, **options: Any) -> Dataset:
    given = {"first_bytes": 700, "buffer": 6} | options
    corpus = Stream(str(path), [0.6, 0.2, 0.2], 0, **given)
    return prepare(corpus, EndMarker(Characters()), Assets((), folder / "cache"))


def lanes(dataset: Dataset) -> list[Lane]:
    shards = dataset.shards
    assert shards is not None
    return [
        Lane(shards, dataset.tokenizer, 3, number, shards.lanes, 6, 9, 8, dataset.held_out())
        for number in range(shards.lanes)
    ]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_batches_are_those_of_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what is held out and counted, from any position on, over passes; whichever it began
    with."""
    monkeypatch.setattr(token_shards, "ROWS_AT_A_TIME", 7)
    out = write(tmp_path)
    text, tokens = (dataset_of(path, tmp_path) for path in (source(tmp_path), out))
    assert isinstance(text.shards, FileShards)
    assert isinstance(tokens.shards, TokenShards)
    assert (text.digest, text.parts) == (tokens.digest, tokens.parts)
    assert (text.shards.sha256, text.shards.bytes) == (tokens.shards.sha256, tokens.shards.bytes)
    for own, other in zip(lanes(text), lanes(tokens), strict=True):
        whole = [*islice(own.blocks(own.start), 90)]
        assert whole[-1][0]["shard"] >= 2 * 5
        for begin in (0, 13, 61):
            start = type(own.start)(**whole[begin][0])
            for (place, rows), (again, same) in zip(
                whole[begin:], other.blocks(start, begin), strict=False
            ):
                assert place == again
                np.testing.assert_array_equal(rows, same)
    assert all(whole[-1][0][name] for name in ("held_out", "empty", "unknown", "replaced"))
    assert "5 shards of" in tokens.shards.notes()[0]


def test_any_number_of_processes_writes_the_same_bytes(tmp_path: Path) -> None:
    alone, several = write(tmp_path), write(tmp_path, "several", 2)
    assert files(alone) == files(several)
    assert len(files(alone)) == 7


def test_what_is_missing_or_damaged_is_written_again_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = write(tmp_path)
    whole = files(out)
    written: list[str] = []
    atomic_write = write_tokens.atomic_write

    def writing(path: Path) -> Any:
        written.append(path.name)
        return atomic_write(path)

    (out / "000001.tokens").unlink()
    content = whole["000002.tokens"]
    (out / "000002.tokens").write_bytes(content[:7] + bytes([content[7] ^ 1]) + content[8:])
    (out / "000003.tokens").write_bytes(whole["000003.tokens"][:-20])
    (out / "000004.tokens").write_bytes(b"")
    (out / ".000000.tokens.zoo-0123abcd").touch()  # of a process that was killed
    with monkeypatch.context() as patch:
        patch.setattr(write_tokens, "atomic_write", writing)
        write(tmp_path)
    assert written == [f"00000{number}.tokens" for number in (1, 2, 3, 4)]
    assert files(out) == whole
    (out / MANIFEST).unlink()
    write(tmp_path)
    assert files(out) == whole


def test_killed_in_the_middle_it_is_gone_on_with(tmp_path: Path) -> None:
    """A folder that is not finished is not trained on."""
    whole = files(write(tmp_path, "whole"))

    def killed() -> None:
        encode = write_tokens.Encoding.encode

        def dying(encoding: Any, which: int) -> Any:
            if which == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return encode(encoding, which)

        write_tokens.Encoding.encode = dying  # type: ignore[method-assign]
        write(tmp_path)

    process = os.fork()
    if process == 0:
        killed()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL
    assert {"000000.tokens", "000001.tokens"} < set(files(tmp_path / "out"))
    with pytest.raises(UsageError, match="are not finished: give the same command"):
        dataset_of(tmp_path / "out", tmp_path)
    assert files(write(tmp_path)) == whole


def test_a_shard_that_is_damaged_is_found_when_it_is_read(tmp_path: Path) -> None:
    out = write(tmp_path)
    dataset = dataset_of(out, tmp_path, lanes=1)
    assert dataset.shards is not None
    path = out / "000003.tokens"
    content = path.read_bytes()
    for wrong in (content[:9] + bytes([content[9] ^ 4]) + content[10:], content[:300], b""):
        path.write_bytes(wrong)
        with pytest.raises(RunFailure, match=r"000003.tokens is damaged, or has changed since"):
            [*islice(lanes(dataset)[0].blocks(lanes(dataset)[0].start), 90)]
    path.unlink()
    with pytest.raises(UsageError, match=r"000003.tokens can't be read: No such file"):
        [*dataset.shards.documents(3)]


def test_folders_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    out = write(tmp_path)
    for options, words in (
        ({"errors": "strict"}, 'its documents were read with data.errors="replace": give the same'),
        ({"divider": "--"}, "its documents were read with data.divider=null"),
        ({"first_bytes": 900}, "has the text of its first documents alone: lower data.first_bytes"),
        ({"first_bytes": 100}, "was encoded by another tokenizer"),
    ):
        with pytest.raises(UsageError, match=words):
            dataset_of(out, tmp_path, **options)
    (tmp_path / "list").mkdir()
    with pytest.raises(UsageError, match=r".tokens is not read; it is one of a folder of token"):
        Stream([str(out)], [1.0, 0.0, 0.0]).read(Assets((), tmp_path / "cache"))
    manifest = (out / MANIFEST).read_bytes()
    for name, wrong, words in (
        (MANIFEST, manifest.replace(b'"<', b'">').replace(b'"|', b'">'), "json is damaged"),
        (MANIFEST, b"[]", "json is damaged"),
        ("first.jsonl", b"{}", "first.jsonl has changed since"),
    ):
        before = (out / name).read_bytes()
        (out / name).write_bytes(wrong)
        with pytest.raises(UsageError, match=words):
            dataset_of(out, tmp_path)
        (out / name).write_bytes(before)
    with pytest.raises(UsageError, match="holds token shards of other reading: choose another"):
        write(tmp_path, "out", 1, "data.errors=strict")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.doc").touch()
    with pytest.raises(UsageError, match=r"holds other files, such as 'thesis.doc'"):
        write(tmp_path, "mine")


def test_the_command(command: Any, tmp_path: Path) -> None:
    place = source(tmp_path)
    chosen = ("data=stream", f"data.path={place}", *BOTH, f"cache={tmp_path / 'cache'}")
    ended: Ended = command("prepare", "--out", tmp_path / "out", "--workers", "1", *chosen)
    assert (ended.code, ended.err) == (0, "")
    assert "tokens (uint8) of 163 documents in 5 shards; train with data=stream" in ended.out
    for typed, words in (
        (("data=text", f"data.path={place / '0.txt'}"), "--out is for data=stream: data=text is"),
        ((*chosen, "--workers", "0"), "--workers 0 must be at least 1"),
        ((*chosen, f"data.path={tmp_path / 'out'}"), "is encoded already"),
    ):
        ended = command("prepare", "--out", tmp_path / "other", *typed)
        assert ended.code == 2
        assert words in ended.err
    shutil.rmtree(tmp_path / "out")
