"""No file of a run or of the cache is unpickled."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from tests.runs.tampering import TOOLS, Command, sign
from tests.small_runs import summary, train


class Payload:
    """What runs when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.mark,)


def test_the_payload_works(tmp_path: Path) -> None:
    """The negative control of the tests below."""
    pickle.loads(pickle.dumps(Payload(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


def poison(path: Path, mark: Path) -> None:
    """Put a pickle where a file of a run is, in the format in which it would be read."""
    if path.suffix == ".pt":
        torch.save({"format": 3, "model": Payload(mark)}, path)
        sign(path)
    elif path.suffix == ".npy":
        np.save(path, np.array([Payload(mark)], dtype=object), allow_pickle=True)
    elif path.suffix == ".yaml":
        path.write_text(f"seed: !!python/object/apply:pathlib.Path.touch ['{mark}']\n")
    else:
        path.write_bytes(pickle.dumps(Payload(mark)))


def test_no_file_of_a_run_is_unpickled(
    command: Command, finished_run: Path, tmp_path: Path
) -> None:
    """Each of them, one at a time; every tool either does not mind or says it in one line."""
    mark = tmp_path / "ran"
    names = [
        path.relative_to(finished_run)
        for path in sorted(finished_run.rglob("*"))
        if path.is_file() and path.suffix not in (".sha256", ".log")
    ]
    assert {name.suffix for name in names} >= {".pt", ".npy", ".yaml", ".json", ".jsonl", ".txt"}
    refused = set()
    for number, name in enumerate(names):
        run = Path(shutil.copytree(finished_run, tmp_path / f"copied-{number}"))
        poison(run / name, mark)
        for tool, *options in (
            *TOOLS, ("sample", "--tokens", "1", "--mask-unused"), ("compare",),
            ("evaluate", "--checkpoint", "latest"),
        ):  # fmt: skip
            ended = command(tool, run, *options)
            assert not mark.exists(), (name, tool)
            assert "Traceback" not in ended.err
            assert ended.code in (0, 1, 2)
            if ended.code and tool != "compare":
                assert len(ended.err.splitlines()) == 1, ended.err
                refused.add(name.name.partition("-")[0])
        ended = command("train", f"run_dir={run}", "resume=true")
        assert not mark.exists(), name
        assert "Traceback" not in ended.err
    assert refused >= {"best", "step", "train_counts.npy", "config.yaml", "characters.txt"}


def test_the_cache_is_not_unpickled(tmp_path: Path) -> None:
    """Nor trusted: what it should hold is made again."""
    assert train(tmp_path / "a", "train.steps=1") == 0
    cached = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert cached
    mark = tmp_path / "ran"
    for path in cached:
        path.write_bytes(pickle.dumps(Payload(mark)))
    assert train(tmp_path / "b", "train.steps=1") == 0
    assert not mark.exists()
    assert summary(tmp_path / "b")["test"] == summary(tmp_path / "a")["test"]
