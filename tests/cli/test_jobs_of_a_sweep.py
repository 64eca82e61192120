"""The jobs of a sweep: which there are, and that their files are composed once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from harness.cli.loader import Loader
from harness.common.paths import CONF
from harness.training import sweep as sweeps
from tests.conftest import Ended

Command = Callable[..., Ended]
MASTER = ["model=gpt,mlp", "seed=0,1", "hydra.sweep.dir=here"]
JOBS = [
    ["model=gpt", "seed=1"],
    ["seed=1", "model=gpt", "train.steps=3", "eval.prompt='a b'"],
    ["model=gpt", "~train.clip", "++model.n_layer=3"],
    ["experiment=seed_mlp", "model.n_embd=7"],
    ["logger=[tensorboard]", "optimizer.betas=[0.5,0.6]", "+data.more={a:1}"],
    ["names.model=mine", "model._target_=zoo.mlp.MLP", "model=mlp", "model.n_embd=8"],
]


def hydras(loader: Loader, overrides: list[str]) -> Any:
    return ConfigLoaderImpl.load_configuration(loader, "config", overrides, RunMode.RUN)


@pytest.mark.parametrize("job", JOBS, ids=" ".join)
def test_a_job_is_what_hydra_composes(job: list[str]) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        assert isinstance(loader, Loader)
        alone = loader.load_configuration(
            config_name="config", overrides=[MASTER[-1], *job], run_mode=RunMode.RUN
        )
        master = loader.load_configuration(
            config_name="config", overrides=list(MASTER), run_mode=RunMode.MULTIRUN
        )
        for _ in range(2):  # the second from what the first left
            found = loader.load_sweep_config(master, job)
            assert OmegaConf.to_yaml(found) == OmegaConf.to_yaml(alone)
            assert found._get_flag("struct") == alone._get_flag("struct")
    if "mlp" not in " ".join(job):
        assert OmegaConf.to_yaml(hydras(loader, [MASTER[-1], *job])) == OmegaConf.to_yaml(alone)


def test_files_are_composed_once_for_each_choice_of_them(
    command: Command, small_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not three times for each job: when it is checked, validated by Hydra, and run."""
    composed, checked, begin = 0, 0, sweeps.begin_sweep
    compose, check = ConfigLoaderImpl._load_configuration_impl, sweeps.check_settings

    def composing(*arguments: Any, **named: Any) -> Any:
        nonlocal composed
        composed += 1
        return compose(*arguments, **named)

    def checking(*arguments: Any) -> None:
        nonlocal checked
        checked += 1
        check(*arguments)

    def beginning(*arguments: Any) -> Any:
        begun = begin(*arguments)
        found.append((composed, checked, len(begun.jobs)))
        raise SystemExit(0)

    found: list[tuple[int, int, int]] = []
    monkeypatch.setattr(ConfigLoaderImpl, "_load_configuration_impl", composing)
    monkeypatch.setattr(sweeps, "check_settings", checking)
    monkeypatch.setattr(sweeps, "begin_sweep", beginning)
    for number in (2, 40):
        composed = checked = 0
        lr = ",".join(f"{n / 10}" for n in range(1, number // 2 + 1))
        ended = command(
            "train", "-m", "model=bigram", "seed=0,1", f"optimizer.lr={lr}", "data=text",
            f"data.path={small_text}", "device=cpu", "train.seq_len=8",
        )  # fmt: skip
        assert ended.code == 0, ended.err
    assert [jobs for *_, jobs in found] == [2, 40]
    assert found[0][0] == found[1][0] < 5
    assert [checks for _, checks, _ in found] == [1, 20]


@pytest.mark.parametrize("line", ["model=glob(zz*)", "seed=range(3,3)", "model=glob(*,exclude=*)"])
def test_a_sweep_of_nothing_is_refused(line: str, command: Command, tmp_path: Path) -> None:
    ended = command("train", "-m", line)
    assert ended.code == 2
    assert ended.err == f"error: {line} selects nothing: the sweep has no jobs\n"
    assert list((tmp_path / "here").iterdir()) == []


def test_a_choice_of_a_sweep_may_be_a_list(
    command: Command, small_text: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "sweep"
    ended = command(
        "train", "-m", "logger=[local],[local,tensorboard]", "model=bigram", "tokenizer=bytes",
        "data=text", f"data.path={small_text}", "train.steps=1", "eval.sample_tokens=0",
        "device=cpu", f"hydra.sweep.dir={folder}",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    chosen = [OmegaConf.load(folder / f"{n}-bigram-bytes-s0/config.yaml").logger for n in (0, 1)]
    assert [list(each) for each in chosen] == [["local"], ["local", "tensorboard"]]


def test_an_error_in_the_callback_ends_the_sweep(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Hydra alone would warn, and train all the same."""

    def broken(*arguments: Any) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(sweeps, "begin_sweep", broken)
    ended = command("train", "-m", "model=bigram", "seed=0,1")
    assert ended.code == 1
    assert "KeyError: 'a bug'" in ended.err
    assert list((tmp_path / "here").iterdir()) == []
