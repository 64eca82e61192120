"""What a launcher left behind is refused, and processes that differ do not train together."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.common.errors import RunFailure, UsageError
from harness.training import launcher
from tests import small_runs as training

RIGHT = {
    "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "0",
    "MASTER_ADDR": "localhost", "MASTER_PORT": "29500",
}  # fmt: skip


def test_what_a_launcher_sets_is_read() -> None:
    assert launcher.read_environment(RIGHT) == {
        "rank": 1, "world_size": 2, "local_rank": 0, "address": ("localhost", 29500)
    }  # fmt: skip
    assert launcher.read_environment({"RANK": "0", "WORLD_SIZE": "1"}) == {"local_rank": 0}
    # Where the others would be, without there being any.
    assert launcher.read_environment({"MASTER_ADDR": "a", "MASTER_PORT": "x", "OTHER": ""}) == {}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        *(({name: None}, f"{name} is not set") for name in RIGHT if name != "LOCAL_RANK"),
        *(({name: ""}, name) for name in RIGHT),
        ({"RANK": "abc"}, "RANK should be a whole number"),
        ({"RANK": "-1"}, "RANK should be a whole number"),
        ({"RANK": "²"}, "RANK should be a whole number"),
        ({"RANK": "9" * 5000}, "RANK should be a whole number"),
        ({"RANK": "2"}, "RANK should be below WORLD_SIZE"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE should be at least 1"),
        ({"WORLD_SIZE": "2.0"}, "WORLD_SIZE should be a whole number"),
        ({"LOCAL_RANK": "2"}, "LOCAL_RANK should be at most RANK"),
        ({"MASTER_PORT": "70000"}, "MASTER_PORT should be a port"),
        ({"MASTER_PORT": "http"}, "MASTER_PORT should be a whole number"),
        (dict.fromkeys(("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")), "WORLD_SIZE is not"),
    ],
)
def test_variables_that_do_not_fit_together_are_refused_before_anything_is_made(
    changes: dict[str, str | None],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (RIGHT | changes).items():
        if value is not None:
            monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=f"variables don't fit together: {reason}") as refused:
        training.train(tmp_path / "a")
    assert len(str(refused.value).splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "corpus.txt"]
    assert not any((tmp_path / "a").iterdir())


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def meet_all(*calls: tuple[int, int, dict[str, Any]]) -> list[object]:
    """What came of each process (rank, world size, identity), which are threads here."""
    address, ended = ("127.0.0.1", free_port()), [object()] * len(calls)

    def one(number: int, rank: int, size: int, own: dict[str, Any]) -> None:
        try:
            ended[number] = launcher.meet(rank, size, address, own)
        except Exception as error:
            ended[number] = error

    threads = [threading.Thread(target=one, args=(n, *call)) for n, call in enumerate(calls)]
    for thread in threads[::-1]:  # rank 0 is the last to come
        thread.start()
    for thread in threads:
        thread.join()
    return ended


def test_equal_processes_meet() -> None:
    stores = meet_all(*((rank, 3, {"seed": 1, "model.bias": None}) for rank in range(3)))
    assert not [each for each in stores if isinstance(each, Exception)]


def test_processes_that_differ_all_leave_and_name_what_differs() -> None:
    first, second = {"seed": 1, "code": "a" * 64, "b": [1]}, {"seed": 2, "code": "c" * 64, "b": [1]}
    ended = meet_all((0, 3, first), (1, 3, first), (2, 3, second))
    assert [type(each) for each in ended] == [UsageError] * 3
    assert {str(each) for each in ended} == {
        "the processes of one training differ: seed (1 in RANK 0, 2 in 2), "
        f"code ({'a' * 12}… in RANK 0, {'c' * 12}… in 2)"
    }


def test_processes_of_the_same_number_are_refused() -> None:
    launcher_error = meet_all((0, 2, {}), (1, 2, {}), (1, 2, {}))
    assert "two processes have RANK=1" in [str(each) for each in launcher_error]


@pytest.mark.parametrize("rank", [0, 2])
def test_who_waits_says_for_whom_and_not_for_ever(
    rank: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wait: Callable[..., None] = launcher._wait
    monkeypatch.setattr(launcher, "FIRST_WORD", 0.01)
    monkeypatch.setattr(launcher, "_wait", lambda *arguments: wait(*arguments[:2], 0.1))
    (ended,) = meet_all((rank, 3, {}))
    assert isinstance(ended, RunFailure)
    whom = {0: "2 of 3 processes (RANK 1, 2)", 2: "RANK 0 at 127.0.0.1:"}[rank]
    assert str(ended).startswith(whom)
    assert "did not come within" in str(ended)
    said = capsys.readouterr().err
    assert f"waiting for {whom}" in said
    assert "s so far" in said


def test_what_may_not_differ_is_in_the_identity(tmp_path: Path) -> None:
    """Of every setting but those of a machine."""
    from harness.training.run import load_dataset

    def of(*overrides: str, device: str = "cpu") -> dict[str, Any]:
        settings = training.settings(tmp_path / "a", *overrides)
        return launcher.identity(settings, load_dataset(settings), torch.device(device))

    own = of()
    assert launcher.difference([own, of("device=cpu", f"run_dir={tmp_path}/b")]) is None
    for change, name in {
        "seed=3": "seed",
        "resume=true": "resume",
        "tokenizer=bytes": "tokenizer",
    }.items():
        line = launcher.difference([own, own, of(change)])
        assert line is not None
        assert f" {name} (" in line
    line = launcher.difference([own, of(device="cuda:1")])
    assert "kind of device (cpu in RANK 0, cuda in 1)" in str(line)
    (tmp_path / "corpus.txt").write_text(training.TEXT[1:])
    assert "corpus (" in (launcher.difference([own, of()]) or "")
    assert {"code", "corpus", "tokenizer", "number of threads", "version of torch"} < own.keys()
