"""A run that begins at a checkpoint of another one."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.cli.hydra_app import compose
from harness.common.errors import RunFailure, UsageError
from harness.common.interrupt import TERMINATED
from harness.config.settings import Role, read_settings
from harness.diagnostics.comparison import run_differences, trace
from harness.report.records.runs import find_runs
from harness.report.statistics.ranking import compare_runs
from harness.report.text.verdict import notes
from harness.runs import checkpoint
from harness.runs import fork as forking
from harness.runs.checkpoint import StepCheckpoint
from harness.runs.digest import digest
from harness.runs.fork import forked_settings
from harness.runs.resume import resumed_settings
from harness.training import loop
from harness.training.run import run
from tests.conftest import Ended
from tests.small_runs import FILES, GPT_SMALL, settings, summary, train

Command = Callable[..., Ended]
# All there is of state; the stable phase ends at step 6 of 8.
STABLE = (
    *(*GPT_SMALL, "model.dropout=0.1", "train.ema=0.9", "train.accumulate=2"),
    *("schedule=stable_decay", "schedule.warmup=2", "schedule.decay=2"),
    *("eval.every=2", "checkpoint.every=3", "checkpoint.keep=[4,5]"),
)


def fork(folder: Path, parent: Path, step: int, *overrides: str) -> int:
    """Train `folder`/run, forked from `parent`/run, as the command does."""
    typed = [f"fork_from={parent / 'run'}@{step}", f"run_dir={folder / 'run'}", *overrides]
    typed.append(f"cache={folder.parent / 'cache'}")
    changed = [f"++{each}" if each.startswith("schedule.") else each for each in typed]
    asked = read_settings(compose(changed, known=FILES))
    return run(resumed_settings(forked_settings(asked, changed), changed))


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fork") / "parent"
    assert train(folder, *STABLE) == 0
    return folder


def unlike(folder: Path, other: Path) -> list[str]:
    """What differs but for what makes it a fork."""
    origin = ("summary.json: lineage", "config.yaml: fork_from")
    found = run_differences(folder / "run", other / "run")
    return [
        line for line in found
        if not line.startswith(origin) and ": settings.fork_from differs" not in line
    ]  # fmt: skip


def test_an_unchanged_fork_equals_its_parent_bit_for_bit(parent: Path, tmp_path: Path) -> None:
    step = 5  # between two evaluations
    assert fork(tmp_path / "fork", parent, step) == 0
    assert unlike(parent, tmp_path / "fork") == []
    (lineage,) = summary(tmp_path / "fork")["lineage"]
    assert (lineage["run"], lineage["step"]) == (str(parent / "run"), step)
    steps = checkpoint.list_steps(parent / "run/checkpoints", StepCheckpoint)
    assert steps == [8, 6, 5, 4]
    digest_file = parent / f"run/checkpoints/step-{step:08}.pt.sha256"
    assert lineage["checkpoint"] == digest_file.read_text().split()[0]


@pytest.mark.long
def test_several_decays_from_one_stable_phase_equal_whole_trainings(
    parent: Path, tmp_path: Path
) -> None:
    """A shorter and a longer one. The rates up to the fork are those of a training of its own."""
    for steps in ("6", "10"):
        whole, forked = tmp_path / f"whole-{steps}", tmp_path / f"fork-{steps}"
        text = f"data.path={parent.parent}/corpus.txt"
        assert train(whole, *STABLE, f"train.steps={steps}", text) == 0
        assert fork(forked, parent, 4, f"train.steps={steps}") == 0
        assert unlike(whole, forked) == []
        rates = [row["lr"] for row in trace(forked / "run") if "lr" in row]
        assert len(rates) == int(steps)


def test_a_fork_changes_what_is_typed_and_nothing_before(parent: Path, tmp_path: Path) -> None:
    assert fork(tmp_path / "fork", parent, 5, "optimizer.lr=1e-2", "schedule.floor=0.5") == 0
    before, after = trace(parent / "run"), trace(tmp_path / "fork/run")
    assert after[:5] == before[:5]
    assert float.fromhex(after[5]["lr"]) == 1e-2
    assert after[6]["train/loss"] != before[6]["train/loss"]
    assert summary(tmp_path / "fork")["train"]["tokens"] == summary(parent)["train"]["tokens"]


def test_a_fork_with_other_rows_counts_its_parent_s_flops_as_they_were(
    parent: Path, tmp_path: Path
) -> None:
    """Two steps of two times two rows, then two of three times two; and a fork of that one."""
    of_row = summary(parent)["train"]["flops"] / (8 * 4)
    changes = ("train.accumulate=3", "train.steps=6", "checkpoint.keep=all")
    assert fork(tmp_path / "a", parent, 4, *changes) == 0
    assert summary(tmp_path / "a")["train"]["flops"] == of_row * (4 * 4 + 2 * 6)
    assert fork(tmp_path / "b", tmp_path / "a", 6, "train.accumulate=1", "train.steps=7") == 0
    assert summary(tmp_path / "b")["train"]["flops"] == of_row * (4 * 4 + 2 * 6 + 2)


@pytest.mark.long
def test_a_fork_that_is_cut_off_goes_on_and_is_forked_again(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = loop.draw_batch

    def drawing(ids, seed, now, *rest):  # noqa: ANN001, ANN002, ANN202
        if now == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return draw(ids, seed, now, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "draw_batch", drawing)
        assert fork(tmp_path / "a", parent, 4) == TERMINATED
    with monkeypatch.context() as patch:  # the parent is not needed any more, nor looked for
        patch.delattr(forking, "load_settings")
        assert fork(tmp_path / "a", parent, 4, "resume=auto") == 0
    assert unlike(parent, tmp_path / "a") == []
    assert fork(tmp_path / "b", tmp_path / "a", 5, "train.steps=9") == 0
    assert [each["step"] for each in summary(tmp_path / "b")["lineage"]] == [4, 5]


@pytest.mark.long
def test_a_fork_killed_before_it_had_a_checkpoint_begins_again(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise RunFailure("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", full)
        assert fork(tmp_path / "a", parent, 4) == 1
    typed = ["resume=true", f"run_dir={tmp_path}/a/run"]
    with pytest.raises(UsageError, match=r"if you trust it, give fork_from=.*run@4"):
        resumed_settings(read_settings(compose(typed, known=FILES)), typed)
    assert fork(tmp_path / "a", parent, 4, "resume=auto") == 0
    assert unlike(parent, tmp_path / "a") == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("seed=1",), "can't be forked with another seed: 0 → 1"),
        (("model.n_layer=3",), "can't be forked with another model.n_layer: 2 → 3"),
        (("data.split=[0.9,0.05,0.05]",), "another data.split"),
        (("train.ema=null",), "another train.ema: 0.9 → None"),
        (
            ("train.steps=3", "schedule=constant"),
            "has spent 4 steps already: train.steps=3 is less",
        ),
        (("optimizer=sgd",), "another optimizer._target_"),
    ],
)
def test_what_a_fork_can_not_change(
    parent: Path, tmp_path: Path, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError) as refused:
        fork(tmp_path / "fork", parent, 4, *overrides)
    assert message in str(refused.value)
    assert not (tmp_path / "fork").exists()


@pytest.mark.long
def test_another_step_another_text_a_lost_checkpoint(parent: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no checkpoint of step 7; it has those of 4, 5, 6, 8"):
        fork(tmp_path / "fork", parent, 7)
    with pytest.raises(UsageError, match="is not a run's folder"):
        fork(tmp_path / "fork", tmp_path, 4)
    (tmp_path / "other.txt").write_text("another text, long enough to be split. " * 900)
    with pytest.raises(UsageError, match=r"can't be forked: its (corpus|tokenizer) has changed"):
        fork(tmp_path / "fork", parent, 4, f"data.path={tmp_path}/other.txt")
    lossy = tmp_path / "lossy"
    shutil.copytree(parent, lossy)
    for path in (lossy / "run/checkpoints").glob("best-*"):
        path.unlink()
    assert fork(tmp_path / "fork", lossy, 4) == 1
    assert "lost its best checkpoint of step" in summary(tmp_path / "fork")["error"]
    (lossy / "run/checkpoints/step-00000005.pt").write_bytes(b"damaged")
    with pytest.raises(RunFailure, match=r"step-00000005\.pt is damaged"):
        fork(tmp_path / "again", lossy, 5)


@pytest.mark.long
def test_forks_of_several_seeds_are_one_configuration_and_named(
    parent: Path, tmp_path: Path
) -> None:
    second = tmp_path / "second"
    shutil.copy(parent.parent / "corpus.txt", tmp_path)
    assert train(second, *STABLE, "seed=1") == 0
    folders = [tmp_path / name / "run" for name in ("a", "b", "c")]
    for folder, (origin, step) in zip(
        folders, [(parent, 4), (second, 4), (parent, 5)], strict=True
    ):
        assert fork(folder.parent, origin, step, "train.steps=9") == 0
    found = compare_runs(find_runs([*folders, parent / "run"]))
    assert sorted(len(group.counted) for group in found.ranked) == [1, 1, 2]
    lines = [line for line in notes(found) if "a fork of" in line]
    assert len(lines) == 3
    assert f"a fork of {second}/run at step 4" in "".join(lines)
    chosen = settings(tmp_path / "x")
    jobs = [
        chosen.replace(fork_from=f"{each / 'run'}@4", seed=seed)
        for seed, each in enumerate((parent, second))
    ]
    same = {digest(job, but_for=Role.SAME_CONFIGURATION) for job in jobs}
    assert len(same) == 1
    assert len({digest(job) for job in jobs}) == 2


@pytest.mark.long
def test_a_sweep_of_decays(parent: Path, tmp_path: Path, command: Command) -> None:
    ended = command(
        "train", "-m", f"fork_from={parent}/run@4", "train.steps=6,10", "schedule.decay=1",
        f"hydra.sweep.dir={tmp_path}/sweep", f"cache={tmp_path}/cache",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    jobs = sorted((tmp_path / "sweep").glob("[0-9]*"))
    assert [json.loads((job / "summary.json").read_text())["train"]["steps"] for job in jobs] == [
        6,
        10,
    ]
    assert "a fork of" in ended.out
