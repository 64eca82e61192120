"""Training on a stream: shared out without overlap, and resumed bit for bit."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from harness.common.errors import RunFailure, UsageError
from harness.data.lane import Lane, Position
from harness.data.shards import _order
from harness.data.write_tokens import write_tokens
from harness.diagnostics import drill
from harness.training import streamed_rows
from harness.training.context import ignore
from harness.training.distributed import ProcessGroup
from harness.training.run import load_dataset
from harness.training.streamed_rows import StreamedRows
from tests.small_runs import GPT_SMALL, SMALL, settings, summary, trace, train
from tests.training.test_distributed import finish, start, weights


def shards(folder: Path, count: int = 5, lines: int = 40) -> tuple[str, ...]:
    """Settings of a small training on a stream, whose shards are written."""
    place = folder / "shards"
    place.mkdir(exist_ok=True)
    for shard in range(count):
        texts = [sha256(f"{shard}.{line}".encode()).hexdigest() for line in range(lines)]
        (place / f"{shard}.txt").write_text("".join(f"{text}\n" for text in texts))
    return (
        "data=stream", f"data.path={place}", "data.first_bytes=2000", "data.lanes=3",
        "data.buffer=5", "data.split=[0.8,0.1,0.1]", *GPT_SMALL,
    )  # fmt: skip


class InThisProcess:
    """Reads when it is asked to, and keeps no process busy."""

    def __init__(self, lane: Lane, start: Position, number: int) -> None:
        self._blocks = lane.blocks(start, number)

    def next(self, check: Any) -> Any:
        return next(self._blocks)

    def close(self) -> None: ...


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed_rows, "ReadAhead", InThisProcess)


class Ranks:
    """What several processes exchange, one after the other: as much as needs no answer."""

    def __init__(self, rank: int, size: int) -> None:
        self.shard, self.world_size = ProcessGroup(rank, size).shard, size

    def gather(self, own: Any) -> list[Any]:
        return [own]

    def all_reduce(self, tensors: Any) -> None: ...


def rows_of(
    folder: Path, chosen: tuple[str, ...], rank: int = 0, size: int = 1, saved: Any = None
) -> StreamedRows:
    own = settings(folder, *chosen)
    context = SimpleNamespace(
        settings=own, dataset=load_dataset(own), processes=Ranks(rank, size), report=ignore,
        folder=SimpleNamespace(checkpoints=folder),
    )  # fmt: skip
    return StreamedRows(context, saved)


def steps(rows: StreamedRows, count: int, size: int = 4) -> Iterator[torch.Tensor]:
    for _ in range(count):
        inputs, targets = rows.batch(size)
        assert (inputs[:, 1:] == targets[:, :-1]).all()
        yield torch.cat([inputs, targets[:, -1:]], dim=1)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("size", [2, 3, 4])
def test_ranks_read_disjoint_rows_which_together_are_those_of_one(
    tmp_path: Path, size: int
) -> None:
    chosen = shards(tmp_path)
    alone = torch.stack([*steps(rows_of(tmp_path / "a", chosen), 30)])
    own = [
        torch.stack([*steps(rows_of(tmp_path / "a", chosen, rank, size), 30)])
        for rank in range(size)
    ]
    read = torch.stack([each.any(dim=2) for each in own]).sum(dim=0)  # no row is all NUL
    assert (read == 1).all()
    torch.testing.assert_close(sum(own), alone, rtol=0, atol=0)
    assert len({tuple(row) for row in alone.flatten(0, 1).tolist()}) == alone[..., 0].numel()


@pytest.mark.usefixtures("here")
def test_what_one_process_cannot_read_ends_all_of_them_in_its_words(tmp_path: Path) -> None:
    chosen = shards(tmp_path)
    other, own = (rows_of(tmp_path / "a", chosen, rank, 2) for rank in (1, 0))
    told = []

    def failing(check: Any) -> Any:
        raise UsageError("shard 1: byte 7 is not UTF-8")

    for reader in other._readers.values():
        reader.next = failing  # type: ignore[method-assign]
    exchange = other._context.processes.gather
    other._context.processes.gather = lambda begun: told.append(begun) or exchange(begun)  # type: ignore
    own._context.processes.gather = lambda begun: [begun, *told]  # type: ignore
    for rows in (other, own):
        with pytest.raises(UsageError, match="byte 7"):
            rows.batch(4)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("at", [1, 4, 5, 17])
def test_rows_go_on_from_any_step(tmp_path: Path, at: int) -> None:
    """Also with batches of another size, as in a fork."""
    chosen = shards(tmp_path)
    whole = rows_of(tmp_path / "a", chosen)
    before = [*steps(whole, at)]
    state = whole.state
    after = torch.cat([*steps(whole, 6)])
    again = rows_of(tmp_path / "a", chosen, saved=state)
    assert again.state == state
    np.testing.assert_array_equal(torch.cat([*steps(again, 8, size=3)]), after)
    assert again.state == whole.state
    assert not {*map(tuple, torch.cat(before).tolist())} & {*map(tuple, after.tolist())}


@pytest.mark.usefixtures("here")
def test_a_state_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    chosen = shards(tmp_path)
    state = rows_of(tmp_path / "a", chosen).state
    for wrong in (
        {"rows": -1}, {"rows": "x"}, {"starts": state["starts"][:2]}, {"starts": 3},
        {"starts": [{**state["starts"][0], "shard": -1}] * 3}, {"starts": [{"shard": 0}] * 3},
    ):  # fmt: skip
        with pytest.raises(RunFailure, match="does not fit its run"):
            rows_of(tmp_path / "a", chosen, saved=state | wrong)


@pytest.mark.usefixtures("here")
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = (*shards(tmp_path), "train.steps=14", "data.buffer=2")  # a lane's third block
    assert train(tmp_path / "whole", *chosen) == 0
    batch, drawn = StreamedRows.batch, 0

    def stopping(rows: StreamedRows, count: int) -> Any:
        nonlocal drawn
        drawn += 1
        if drawn == 8:
            os.kill(os.getpid(), signal.SIGTERM)
        return batch(rows, count)

    with monkeypatch.context() as patch:
        patch.setattr(StreamedRows, "batch", stopping)
        assert train(tmp_path / "cut", *chosen) == 143
    shutil.copytree(tmp_path / "cut", tmp_path / "encoded")
    write_tokens(settings(tmp_path / "whole", *chosen), tmp_path / "tokens", workers=1)
    assert train(tmp_path / "cut", *chosen, "resume=true") == 0
    encoded = f"data.path={tmp_path / 'tokens'}"  # the same, encoded before
    assert train(tmp_path / "encoded", *chosen, encoded, "resume=true") == 0
    for folder in (tmp_path / "cut", tmp_path / "encoded"):
        assert trace(folder) == trace(tmp_path / "whole")
        assert torch.equal(weights(folder), weights(tmp_path / "whole"))
        assert summary(folder)["stream"] == summary(tmp_path / "whole")["stream"]
    found, expected = summary(tmp_path / "cut"), summary(tmp_path / "whole")
    assert found["stream"] == expected["stream"]
    assert found["stream"]["shards"] == 5
    assert found["train"]["epochs"] is None
    assert found["corpus"]["rows"] == "packed"
    refused_where_rows_would_be_others(tmp_path, chosen)


def refused_where_rows_would_be_others(folder: Path, chosen: tuple[str, ...]) -> None:
    """In a fork with longer rows, and when a shard was changed that is not read yet."""
    fork = f"fork_from={folder / 'cut' / 'run'}@14"
    with pytest.raises(UsageError, match=r"can't be forked with another .*train\.seq_len"):
        train(folder / "fork", *chosen, fork, "train.seq_len=8")
    (folder / "shards" / "4.txt").write_text("one")
    with pytest.raises(UsageError, match="names or sizes of its shards have changed"):
        train(folder / "cut", *chosen, "train.steps=16", "resume=true")


@pytest.mark.usefixtures("here")
def test_a_short_source_begins_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    chosen = (*shards(tmp_path, count=1, lines=20), "train.steps=20", "train.batch_size=8")
    with caplog.at_level("INFO", "harness"):
        assert train(tmp_path / "a", *chosen) == 0
    assert "the shards begin anew, pass 2" in caplog.text
    assert summary(tmp_path / "a")["stream"]["passes"] > 2


def test_a_shard_that_cannot_be_read_costs_no_step(tmp_path: Path) -> None:
    chosen = (*shards(tmp_path, count=3), "data.lanes=1", "train.steps=60", "train.batch_size=8")
    later = next(which for which in _order(0, 0, 3)[1:] if which)  # and not what is split
    place = tmp_path / "shards" / f"{later}.txt"
    place.write_bytes(place.read_bytes() + b"\xff\n")
    assert train(tmp_path / "a", *chosen, "data.errors=strict", "checkpoint.every=1000") == 1
    found = summary(tmp_path / "a")
    assert f"{later}.txt is not UTF-8: byte 0xff at byte offset 2600" in found["error"]
    assert found["train"]["steps"] > 0
    assert [*(tmp_path / "a/run/checkpoints").glob(f"step-*{found['train']['steps']}.pt")]


def test_what_counts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no end"):
        train(tmp_path / "a", *shards(tmp_path)[:-4], "model=ngram", "tokenizer=bytes")


def killed_at_batch_40(chosen: list[str], folder: Path) -> None:
    """A life that ends by SIGKILL while a batch is drawn."""
    batch, drawn = StreamedRows.batch, 0

    def dying(rows: StreamedRows, count: int) -> Any:
        nonlocal drawn
        drawn += 1
        if drawn == 40:
            os.kill(os.getpid(), signal.SIGKILL)
        return batch(rows, count)

    StreamedRows.batch = dying  # type: ignore[method-assign]
    drill.train_or_resume(chosen, folder)


@pytest.mark.long
def test_killed_without_warning(tmp_path: Path) -> None:
    chosen = (*shards(tmp_path), "train.steps=60", "eval.every=30", "checkpoint.every=7")
    train(tmp_path / "whole", *chosen)
    folder, given = tmp_path / "cut", [*SMALL, *chosen, f"cache={tmp_path / 'cache'}"]
    life = drill.start(killed_at_batch_40, given, folder)
    life.join()
    assert life.exitcode == -signal.SIGKILL, (folder / "output.txt").read_text()
    assert train(folder, *chosen, "resume=true") == 0
    assert trace(folder) == trace(tmp_path / "whole")
    assert torch.equal(weights(folder), weights(tmp_path / "whole"))


@pytest.mark.long
def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    chosen = (*shards(tmp_path), "train.accumulate=4", "train.steps=6", "optimizer=sgd")
    one, two = tmp_path / "one", tmp_path / "two"
    (alone,) = finish(start(one, 1, *chosen))
    first, second = finish(start(two, 2, *chosen))
    assert alone[0] == first[0] == second[0] == 0, alone[2] + first[2] + second[2]
    assert summary(two)["stream"] == summary(one)["stream"]
    torch.testing.assert_close(weights(two), weights(one), rtol=1e-6, atol=1e-6)


@pytest.mark.long
def test_several_processes_go_on_where_several_ended(tmp_path: Path) -> None:
    """In the middle of blocks, over passes; as many bit for bit, another number as near as ever."""
    chosen = (*shards(tmp_path), "train.accumulate=6", "optimizer=sgd", "schedule=constant")
    whole, cut, other = (tmp_path / name for name in ("whole", "cut", "other"))

    def by(size: int, folder: Path, *more: str) -> None:
        ended = finish(start(folder, size, *chosen, *more))
        assert [code for code, *_ in ended] == [0] * size, "".join(err for *_, err in ended)

    by(2, whole, "train.steps=13")
    by(2, cut, "train.steps=5")
    shutil.copytree(cut, other)
    by(2, cut, "train.steps=13", "resume=true")
    by(3, other, "train.steps=13", "resume=true")
    assert torch.equal(weights(cut), weights(whole))
    torch.testing.assert_close(weights(other), weights(whole), rtol=1e-6, atol=1e-6)
    assert summary(cut)["stream"] == summary(other)["stream"] == summary(whole)["stream"]
    assert summary(cut)["stream"]["documents"] > 0
