"""Two real processes train as one would, and none waits for one that is gone."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.common.errors import UsageError
from harness.common.paths import CONF
from harness.training.distributed import ProcessGroup
from tests import small_runs as training
from tests.waiting import GUARD, wait_until

MODEL = ("model=gpt", "model.n_layer=1", "model.n_head=2", "model.n_embd=16", "model.dropout=0.2")
# A quarter of the targets, at random places, does not count; what each process has drawn, and
# which of it it trains on, it writes down.
RAGGED = """
import json, os, sys
import torch
from harness.cli.hydra_app import run_hydra
from harness.training import loop, trainer
from harness import train
drawn, trained = loop.draw_batch, trainer.add_gradients
log = open(sys.argv.pop(1), "w", buffering=1)
def draw_batch(ids, seed, step, rows, *rest):
    inputs, targets = drawn(ids, seed, step, rows, *rest)
    generator = torch.Generator().manual_seed(step)
    share = torch.rand(rows, 1, generator=generator) / 2
    masked = torch.rand(targets.shape, generator=generator) < share
    return inputs, torch.where(masked, -1, targets)
def add_gradients(model, features, targets, *rest):
    log.write(json.dumps(targets.tolist()) + "\\n")
    return trained(model, features, targets, *rest)
loop.draw_batch, trainer.add_gradients = draw_batch, add_gradients
run_hydra(train.task)
"""
# A machine so busy that two processes that race at the same time find opposite precisions faster.
TORN = """
import os
from pathlib import Path
from harness.compute import race
from tests.waiting import wait_until
def measured(products):
    Path(os.environ["MEETING"], os.environ["RANK"]).touch()
    wait_until(lambda: len(os.listdir(os.environ["MEETING"])) == 2)
    return dict.fromkeys(products, 1.0) | {"bf16": 0.1 if os.environ["RANK"] == "1" else 9.0}
race._measured = measured
"""


@given(count=st.integers(0, 40), size=st.integers(1, 9))
def test_shares_are_disjoint_and_complete(count: int, size: int) -> None:
    shares = [ProcessGroup(rank, size).shard(range(count)) for rank in range(size)]
    assert sorted(number for share in shares for number in share) == list(range(count))


def start(
    folder: Path, size: int, *overrides: str, before: str = ""
) -> list[subprocess.Popen[str]]:
    """As many processes as one training, each told its number as torch's launcher would."""
    training.settings(folder)  # writes the corpus
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *training.SMALL, *MODEL, f"data.path={folder.parent / 'corpus.txt'}",
        f"cache={folder.parent / 'cache'}", f"run_dir={folder / 'run'}", *overrides,
    ]  # fmt: skip
    processes = []
    for rank in range(size):
        world = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
        world |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [sys.executable, "-c", before + RAGGED, str(folder / f"{rank}.jsonl"), *command],
            cwd=CONF.parent,
            env=os.environ | world,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
    return processes


def finish(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of each; all leave once they are told to."""
    ended = []
    for process in processes:
        out, err = process.communicate(timeout=GUARD)
        ended.append((process.returncode, out, err))
    return ended


def micro_batches(folder: Path, rank: int) -> list[Any]:
    return [json.loads(line) for line in (folder / f"{rank}.jsonl").read_text().splitlines()]


def weights(folder: Path) -> torch.Tensor:
    path = max((folder / "run/checkpoints").glob("step-*.pt"))
    state = torch.load(path, weights_only=True)["model"]
    return torch.cat([tensor.flatten() for tensor in state.values()])


def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    plan = ("train.accumulate=4", "train.steps=6", "optimizer=sgd", "optimizer.lr=0.5")
    one, two = tmp_path / "one", tmp_path / "two"
    (alone,) = finish(start(one, 1, *plan))
    first, second = finish(start(two, 2, *plan))
    assert alone[0] == first[0] == second[0] == 0, first[2] + second[2]
    assert "bits/byte" in first[1]
    said = (second[1] + second[2]).splitlines()  # what one says need not be said twice
    assert [line for line in said if not line.startswith("[Gloo]")] == []  # as torch 2.10 does

    for ours, theirs in zip(training.rows(two), training.rows(one), strict=True):
        assert ours["tokens"] == theirs["tokens"]
        for name in ("train/loss", "grad_norm", "val/nats_per_token"):
            assert (name in ours) == (name in theirs)
            if name in ours:
                assert ours[name] == pytest.approx(theirs[name], rel=1e-6), name
    torch.testing.assert_close(weights(two), weights(one), rtol=1e-6, atol=1e-6)

    # Each micro-batch was trained on by exactly one of the two, and the masks were ragged.
    parts = [micro_batches(two, rank) for rank in (0, 1)]
    assert len(parts[0]) == len(parts[1]) == 12
    assert sorted(parts[0] + parts[1]) == sorted(micro_batches(one, 0))
    assert len({str(batch).count("-1") for batch in parts[0] + parts[1]}) > 3


def test_all_choose_the_same_whatever_each_would_measure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "meeting").mkdir()
    monkeypatch.setenv("MEETING", str(tmp_path / "meeting"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    chosen = ("precision=auto", "train.accumulate=2", "train.steps=1")
    ended = finish(start(tmp_path / "two", 2, *chosen, before=TORN))
    assert [code for code, _, _ in ended] == [0, 0], ended
    (file,) = (tmp_path / "user").rglob("races/*")
    first = "bf16" if json.loads(file.read_text())["seconds"]["bf16"] < 1 else "fp32"
    assert training.summary(tmp_path / "two")["machine"]["precision"] == first


@pytest.mark.long
def test_all_stop_at_the_same_step_and_go_on_from_it(tmp_path: Path) -> None:
    plan = ("train.accumulate=2", "train.steps=100000", "eval.every=100000")
    run = tmp_path / "two" / "run"
    processes = start(tmp_path / "two", 2, *plan)
    wait_until(
        lambda: len(micro_batches_there(tmp_path / "two")) > 5,
        alive=lambda: all(process.poll() is None for process in processes),
    )
    processes[1].send_signal(signal.SIGTERM)  # one of them is told: both stop, and save
    ended = finish(processes)
    assert [code for code, _, _ in ended] == [143, 143], ended
    stopped = json.loads((run / "summary.json").read_text())
    assert stopped["status"] == "stopped"
    step = stopped["train"]["steps"]
    assert f"step-{step:08d}.pt" in {path.name for path in (run / "checkpoints").iterdir()}
    again = finish(start(tmp_path / "two", 2, f"train.steps={step + 3}", "resume=true"))
    assert [code for code, _, _ in again] == [0, 0], again
    assert [row["step"] for row in training.rows(tmp_path / "two")] == list(range(step + 4))


def micro_batches_there(folder: Path) -> list[str]:
    path = folder / "1.jsonl"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.long
def test_none_waits_for_one_that_was_killed(tmp_path: Path) -> None:
    plan = ("train.accumulate=2", "train.steps=100000", "eval.every=100000")
    processes = start(tmp_path / "two", 2, *plan)
    wait_until(
        lambda: len(micro_batches_there(tmp_path / "two")) > 5,
        alive=lambda: all(process.poll() is None for process in processes),
    )
    processes[1].kill()
    processes[0].communicate(timeout=GUARD)
    assert processes[0].returncode == 1
    summary = json.loads((tmp_path / "two/run/summary.json").read_text())
    assert summary["status"] == "failed"
    assert "another process of this training is gone" in summary["error"]
    processes[1].communicate()


@pytest.mark.long
def test_a_signal_does_not_wait_for_one_that_hangs(tmp_path: Path) -> None:
    plan = ("train.accumulate=2", "train.steps=100000", "eval.every=100000")
    processes = start(tmp_path / "two", 2, *plan)
    wait_until(
        lambda: len(micro_batches_there(tmp_path / "two")) > 5,
        alive=lambda: all(process.poll() is None for process in processes),
    )
    processes[1].send_signal(signal.SIGSTOP)
    processes[0].send_signal(signal.SIGTERM)
    _, err = processes[0].communicate(timeout=GUARD)
    assert processes[0].returncode == 143, err
    summary = json.loads((tmp_path / "two/run/summary.json").read_text())
    assert summary["status"] == "stopped"
    step = summary["train"]["steps"]
    assert (tmp_path / f"two/run/checkpoints/step-{step:08d}.pt").exists()
    processes[1].send_signal(signal.SIGCONT)
    _, err = processes[1].communicate(timeout=GUARD)
    assert processes[1].returncode == 1
    assert "another process of this training is gone" in err


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (
            ["train.accumulate=3"],
            "train.accumulate=3 micro-batches can't be divided evenly among 2",
        ),
        (
            ["model=mlp", "model.norm=batch_norm", "model.bias=false", "train.accumulate=2"],
            "batch normalization: each process would use the statistics of its own",
        ),
    ],
)
def test_what_can_not_be_shared_is_refused(
    overrides: list[str],
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    launched = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=complaint):
        training.train(tmp_path / "a", *overrides)
    assert not (tmp_path / "a/run").exists()
