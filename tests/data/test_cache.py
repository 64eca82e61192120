"""The cache of encoded texts: used, never believed when damaged, filled by several at once."""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from harness.cli.tool import run_tool
from harness.common.errors import UsageError
from harness.common.files import atomic_write
from harness.data.assets import Assets
from harness.data.corpus import TextFile
from harness.data.dataset import prepare
from tests.data.datasets import SHARES, dataset_of, parts_of
from tests.waiting import GUARD
from zoo_tokenizers import Tokenizer
from zoo_tokenizers.bytes import Bytes
from zoo_tokenizers.characters import Characters


def test_the_cache_spares_the_encoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = dataset_of(tmp_path, b"to be or not to be" * 9, Characters())

    def never(self: Tokenizer, text: str) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr(Characters, "encode_known", never)
    monkeypatch.setattr(Characters, "fit", never)
    again = dataset_of(tmp_path, b"to be or not to be" * 9, Characters())
    for one, other in zip(parts_of(first), parts_of(again), strict=True):
        assert np.array_equal(one.ids, other.ids)
        assert (one.bytes, one.unknown) == (other.bytes, other.unknown)
    with pytest.raises(AssertionError, match="encoded again"):
        dataset_of(tmp_path, b"to be or not to bE" * 9, Characters())


def test_other_splits_and_tokenizers_have_folders_of_their_own(tmp_path: Path) -> None:
    content = b"to be or not to be" * 9
    datasets = [
        dataset_of(tmp_path, content, Characters()),
        dataset_of(tmp_path, content, Bytes()),
        dataset_of(tmp_path, content, Bytes(), [0.5, 0.25, 0.25]),
    ]
    assert len({dataset.train.ids.tobytes() for dataset in datasets}) == 3
    assert len(list((tmp_path / "cache/encoded").iterdir())) == 3


def cached_files(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "cache").rglob("*") if path.is_file())


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "gone":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "cut off":
        path.write_bytes(content[:-2])
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


@pytest.mark.parametrize("how", ["gone", "empty", "cut off", "one bit"])
@pytest.mark.parametrize("number", range(6))
def test_a_damaged_cache_is_made_again(tmp_path: Path, number: int, how: str) -> None:
    """Whichever of its files: what was learnt (2), the ids of three parts, their description."""
    content = "to be or not to bé".encode() * 9
    expected = dataset_of(tmp_path, content, Characters())
    ids = [part.ids.tobytes() for part in parts_of(expected)]
    files = cached_files(tmp_path)
    assert [path.name for path in files] == [
        *("meta.json", "test.ids", "train.ids", "val.ids"),
        *("characters.txt", "sha256.txt"),
    ]
    before = [path.read_bytes() for path in files]
    damage(files[number], how)
    again = dataset_of(tmp_path, content, Characters())
    assert [part.ids.tobytes() for part in parts_of(again)] == ids
    assert again.tokenizer.digest == expected.tokenizer.digest
    assert [path.read_bytes() for path in cached_files(tmp_path)] == before


def test_a_cache_that_was_altered_is_made_again(tmp_path: Path) -> None:
    """Still JSON, still plausible: one byte more in the metric's denominator."""
    content = b"to be or not to be" * 9
    expected = dataset_of(tmp_path, content, Bytes())
    (meta,) = (tmp_path / "cache").rglob("meta.json")
    size = expected.train.bytes
    meta.write_text(meta.read_text().replace(f'"bytes": {size}', f'"bytes": {size + 1}'))
    assert dataset_of(tmp_path, content, Bytes()).train.bytes == size


def _prepare_all(
    folders: list[Path], barrier: threading.Barrier, results: multiprocessing.Queue[object]
) -> None:
    for folder in folders:
        corpus, assets = TextFile(str(folder / "text"), SHARES), Assets((), folder / "cache")
        barrier.wait(timeout=GUARD)
        try:
            dataset = prepare(corpus, Characters(), assets)
            results.put([part.ids.tobytes() for part in parts_of(dataset)])
        except BaseException as error:
            results.put(repr(error))


def test_two_processes_may_fill_the_cache_at_once(tmp_path: Path) -> None:
    """An empty one, and one whose every file is damaged; five times, beginning together."""
    content = "To be, or not to be: that is the quéstion.\n".encode() * 20_000
    folders = [tmp_path / str(number) for number in range(10)]
    for number, folder in enumerate(folders):
        folder.mkdir()
        (folder / "text").write_bytes(content)
        if number % 2:
            dataset = dataset_of(folder, content, Characters())
            expected = [part.ids.tobytes() for part in parts_of(dataset)]
            for path in cached_files(folder):
                damage(path, "one bit")
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[object] = context.Queue()
    barrier = context.Barrier(2)
    workers = [
        context.Process(target=_prepare_all, args=(folders, barrier, results), daemon=True)
        for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    for _ in range(2 * len(folders)):
        assert results.get(timeout=GUARD) == expected
    for worker in workers:
        worker.join()
    for folder in folders:
        assert not [path for path in cached_files(folder) if path.name.startswith(".")]


def test_what_killed_encodings_left_is_removed_and_what_others_encode_is_not(
    tmp_path: Path,
) -> None:
    """Of any corpus and tokenizer, by the next training, be its own text encoded already."""
    content = b"to be or not to be" * 9
    dataset_of(tmp_path, content, Bytes())
    for folder in ("assets", "learnt/0", "encoded/1"):
        (tmp_path / "cache" / folder).mkdir(parents=True)
        (tmp_path / "cache" / folder / ".train.ids.zoo-abcd0123").write_bytes(b"killed")
    with atomic_write(tmp_path / "cache/encoded/1/val.ids"):
        dataset_of(tmp_path, content, Bytes())
        (alive,) = (tmp_path / "cache").rglob(".*")
    assert alive.name.startswith(".val.ids.")
    assert (tmp_path / "cache/encoded/1/val.ids").exists()


def test_a_signal_ends_what_learns_in_a_library(tmp_path: Path) -> None:
    """Which holds Python's lock for minutes, so that no handler of Python runs."""
    read, write = os.pipe()

    class Slow(Bytes):
        def fit(self, train: Iterable[str]) -> None:
            os.write(write, b".")
            while True:
                ctypes.PyDLL(None).sleep(600)

    child = os.fork()
    if not child:
        run_tool(lambda: dataset_of(tmp_path, b"to be or not to be" * 9, Slow()) and 0)
    assert os.read(read, 1) == b"."
    os.kill(child, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    assert not cached_files(tmp_path)


def test_no_half_file_is_left_when_the_text_can_not_be_encoded(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="0xff at byte offset 900"):
        dataset_of(tmp_path, b"a" * 900 + b"\xff" * 100, Characters())
    (folder,) = (tmp_path / "cache/encoded").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["train.ids", "val.ids"]


def test_what_the_cache_says_of_itself(tmp_path: Path) -> None:
    """Plain JSON and plain little numbers: any language can read them."""
    dataset_of(tmp_path, "a日".encode() * 50, Characters())
    (meta,) = (tmp_path / "cache/encoded").glob("*/meta.json")
    described = json.loads(meta.read_text())
    assert described["type"] == "uint8"
    assert described["parts"]["train"]["bytes"] == 160
    assert np.fromfile(meta.parent / "train.ids", described["type"]).tolist() == [0, 1] * 40
