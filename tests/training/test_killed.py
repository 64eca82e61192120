"""Killed by SIGKILL at any moment, a training ends as if left alone."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from harness.common.errors import UsageError
from harness.config.keys import names_in_group
from harness.config.settings import BatchNorm
from harness.diagnostics import drill
from harness.runs.folder import RunFolder
from tests.small_runs import GPT_SMALL, train
from tests.training.processes import leftovers, overrides, rehearse
from tests.waiting import wait_until
from tests.zoo_models import TRAINED, choice


@pytest.mark.long
def test_killed_again_and_again_it_ends_as_if_left_alone(tmp_path: Path) -> None:
    chosen = overrides(tmp_path, "eval.every=10", "model.dropout=0.1")
    deaths = rehearse(chosen, tmp_path, 40, 5, drill.train_or_resume)
    assert len(deaths) == 5
    assert drill.differences(tmp_path / "whole", tmp_path / "killed") == []
    assert not leftovers(tmp_path / "killed")


OPTIMIZERS, SCHEDULES = names_in_group("optimizer"), names_in_group("schedule")
EXTRAS = (
    ("train.ema=0.9", "train.on_non_finite=skip"),
    ("train.accumulate=3", "train.label_smoothing=0.1"),
    ("precision=bf16", "train.max_norm=2.0"),
    ("precision=fp16", "observe=full"),
    ("train.patience=2", "train.clip=0.1"),
)
BATCH_NORMS = tuple(
    (f"train.batch_norm={mode}", "model.norm=batch_norm", "model.bias=false")
    for mode in get_args(BatchNorm)
)
CASES = {
    name: [
        *(*choice(name), f"optimizer={OPTIMIZERS[number % len(OPTIMIZERS)]}"),
        *(f"schedule={SCHEDULES[number % len(SCHEDULES)]}", *EXTRAS[number % len(EXTRAS)]),
    ]
    for number, name in enumerate(TRAINED)
} | {f"mlp {mode[0]}": ["model=mlp", "train.ema=0.8", *mode] for mode in BATCH_NORMS}


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_twenty_kills_change_nothing(tmp_path: Path, case: str) -> None:
    """Every architecture, and among them every optimizer, schedule and precision, whatever keeps
    state, and each mode of batch normalization."""
    rhythm = ("train.seq_len=32", "eval.every=20", "checkpoint.every=3")
    chosen = [o for o in overrides(tmp_path, *rhythm) if o not in GPT_SMALL]
    deaths = rehearse([*chosen, *CASES[case]], tmp_path, 60, 20, drill.train_or_resume)
    print(f"{case}: {len(deaths)} kills, {sum(death.writing for death in deaths)} while writing")
    assert len(deaths) == 20
    assert drill.differences(tmp_path / "whole", tmp_path / "killed") == []


def test_killed_as_it_began_nothing_is_in_the_way(tmp_path: Path) -> None:
    """Until the folder holds a configuration it has another name."""
    folder = RunFolder(tmp_path / "run")
    seen = []

    def config() -> str:
        seen.append(folder.path.exists())
        return "a: 1\n"

    class Config(str):
        def encode(self, *arguments: str) -> bytes:  # type: ignore[override]
            seen.append(folder.path.exists())
            return super().encode()

    folder.create(Config("a: 1\n"))
    assert seen == [False]
    assert folder.config.read_text() == "a: 1\n"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_was_killed_as_it_began_is_removed_by_the_next(tmp_path: Path) -> None:
    for name, file in (("00b211ed", ".config.yaml.zoo-3eb0d2a7"), ("0123abcd", "somebody's.txt")):
        (tmp_path / f".run.zoo-{name}/checkpoints").mkdir(parents=True)
        (tmp_path / f".run.zoo-{name}" / file).touch()
    RunFolder(tmp_path / "run").create("a: 1\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".run.zoo-0123abcd", "run"]


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    chosen = overrides(tmp_path, "train.steps=100000", "eval.every=100000")
    life = drill.start(drill.train_or_resume, chosen, tmp_path / "one")
    try:
        wait_until(lambda: drill.last_step(tmp_path / "one") > 5, life.is_alive)
        with pytest.raises(UsageError, match="another process trains there"):
            train(tmp_path / "one", *GPT_SMALL, "resume=true")
        assert life.is_alive()
    finally:
        life.kill()
    life.join()
    assert train(tmp_path / "one", *GPT_SMALL, "train.steps=8", "resume=true") == 0
