"""Runs from before Muon had choices of precision and maps go on, and are forked, as they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli.hydra_app import compose
from harness.common.errors import UsageError
from harness.config.settings import Settings, read_settings
from harness.runs.fork import forked_settings
from harness.runs.resume import resumed_settings
from harness.training import muon as muon_module
from harness.training import run as run_module
from harness.training.run import run
from tests.small_runs import FILES, GPT_SMALL, cut_off, settings, trace, train

MUON = (*GPT_SMALL, "optimizer=muon", "eval.sample_tokens=0", "checkpoint.every=4")
OLDER = ("~optimizer.orthogonalize", "~optimizer.per_map")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained as older runs were: in bf16, joint maps as one matrix."""
    folder = tmp_path_factory.mktemp("whole")
    assert train(folder, *MUON, "optimizer.orthogonalize=bf16", "optimizer.per_map=false") == 0
    return folder


@pytest.fixture
def older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Cut off at step 4; neither its configuration nor its checkpoint names an option. This machine
    would choose fp32."""
    cut_off(tmp_path / "cut", 4, monkeypatch, *MUON, *OLDER)
    for module in (run_module, muon_module):
        monkeypatch.setattr(module, "faster_precision", lambda kind: "fp32")
    return tmp_path / "cut"


def resumed(folder: Path, *typed: str) -> Settings:
    """The settings of a run that is resumed by a command with these words."""
    return resumed_settings(settings(folder, *MUON, "resume=true", *typed), list(typed))


@pytest.mark.parametrize(
    "typed",
    [
        (), ("optimizer=muon",), ("experiment=compare",),
        ("optimizer=muon", "++optimizer.orthogonalize=auto"),
    ],
)  # fmt: skip
def test_it_goes_on_as_it_was(older: Path, whole: Path, typed: tuple[str, ...]) -> None:
    asked = settings(older, *MUON, "resume=true")
    assert run(resumed_settings(asked, list(typed))) == 0
    assert trace(older) == trace(whole)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("optimizer.orthogonalize=fp32", "orthogonalize: None → fp32"),
        ("++optimizer.orthogonalize=fp32", "orthogonalize: None → fp32"),
        ("optimizer.per_map=true", "per_map: None → True"),
        ("optimizer.lr_of={blocks: 1e-3}", r"lr_of.*None → .*0\.001"),
    ],
)
def test_what_is_typed_is_not_left_out(older: Path, typed: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resumed(older, "optimizer=muon", typed)


def test_other_optimizers_and_options_are_not_left_out(tmp_path: Path) -> None:
    train(tmp_path, *GPT_SMALL, "optimizer=adamw", "eval.sample_tokens=0", "~optimizer.fused")
    for optimizer, message in (("adamw", "fused: None → True"), ("muon", "per_map: None → True")):
        typed = f"optimizer={optimizer}"
        asked = settings(tmp_path, *GPT_SMALL, typed, "resume=true")
        with pytest.raises(UsageError, match=message):
            resumed_settings(asked, [typed])


def fork(folder: Path, parent: Path, *overrides: str) -> Settings:
    typed = [f"fork_from={parent / 'run'}@4", f"run_dir={folder / 'run'}", *overrides]
    asked = read_settings(compose([*typed, f"cache={folder.parent / 'cache'}"], known=FILES))
    return forked_settings(asked, typed)


@pytest.mark.parametrize("typed", [(), ("optimizer=muon",)])
def test_a_fork_goes_on_as_it_was(
    older: Path, whole: Path, tmp_path: Path, typed: tuple[str, ...]
) -> None:
    assert run(fork(tmp_path / "fork", older, *typed)) == 0
    assert trace(tmp_path / "fork") == trace(whole)


def test_a_fork_with_other_matrices_is_refused_before_it_has_a_folder(
    older: Path, tmp_path: Path
) -> None:
    train(tmp_path / "newer", *MUON, "optimizer.orthogonalize=bf16")
    for parent, typed, message in (
        (older, "optimizer.per_map=true", "optimizer.per_map: False → True"),
        (tmp_path / "newer", "optimizer.per_map=false", "optimizer.per_map: True → False"),
    ):
        with pytest.raises(UsageError, match=message):
            run(fork(tmp_path / "fork", parent, "optimizer=muon", typed))
        assert not (tmp_path / "fork").exists()
