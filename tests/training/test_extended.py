"""A run that goes on under another budget: where the steps so far would have been trained otherwise
under it, it is no run of that budget, and never passes for one."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from harness.cli.hydra_app import compose
from harness.config.settings import read_settings
from harness.diagnostics.comparison import run_differences
from harness.report.records.runs import find_runs
from harness.report.statistics.ranking import compare_runs
from harness.report.text.verdict import notes
from harness.runs import checkpoint
from harness.runs.checkpoint import StepCheckpoint
from harness.runs.digest import digest, digest_of_run
from harness.runs.folder import RunFolder
from harness.runs.fork import forked_settings
from harness.runs.resume import resumed_settings, with_budget
from harness.runs.summary import read_summary
from harness.training.extension import _trained_alike
from harness.training.run import run
from tests.small_runs import FILES, cut_off, settings, summary, train

BIGRAM = ("model=bigram", "eval.sample_tokens=0", "checkpoint.every=2", "checkpoint.keep=[4]")
LONGER = (*BIGRAM, "train.steps=10")
SAID = "not those of a training of that budget"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`short`, of 6 steps; `extended`, from 6 to 10; `fresh` and `other`, of 10, two seeds."""
    folder = tmp_path_factory.mktemp("extended")
    assert train(folder / "short", *BIGRAM, "train.steps=6") == 0
    shutil.copytree(folder / "short", folder / "extended")
    assert train(folder / "extended", *LONGER, "resume=true") == 0
    assert train(folder / "fresh", *LONGER) == 0
    assert train(folder / "other", *LONGER, "seed=7") == 0
    return folder


def last_state(folder: Path) -> StepCheckpoint:
    state = checkpoint.load(folder / "run/checkpoints", StepCheckpoint)
    assert state is not None
    return state


def test_it_says_so_in_summary_and_log(runs: Path) -> None:
    assert summary(runs / "extended")["extended"] == [6]
    log = (runs / "extended/run/train.log").read_text()
    assert log.count(SAID) == 1
    assert "the budget was steps=6 and is steps=10" in log
    for name in ("short", "fresh"):
        assert "extended" not in summary(runs / name)
        assert SAID not in (runs / name / "run/train.log").read_text()
    assert last_state(runs / "extended").progress["extended"] == [6]


def test_it_is_a_configuration_of_its_own(runs: Path) -> None:
    """Neither a repeat of the seed nor one of several seeds, though config.yaml is the same."""
    fresh, extended = runs / "fresh/run", runs / "extended/run"
    records = find_runs([fresh, extended, runs / "other/run"])
    comparison = compare_runs(records)
    counted = {group.variant: [run.seed for run in group.counted] for group in comparison.ranked}
    seed = summary(runs / "fresh")["seed"]
    assert {name: set(seeds) for name, seeds in counted.items()} == {
        "extended_at_step=6": {seed}, "extended_at_step=–": {seed, 7},
    }  # fmt: skip
    assert not comparison.uncounted
    said = [line for line in notes(comparison) if "another budget at step 6" in line]
    assert len(said) == 1


def test_no_sweep_takes_it_for_its_job(runs: Path) -> None:
    asked = settings(runs / "fresh", *LONGER)
    assert digest_of_run(runs / "fresh/run") == digest(asked)
    assert digest_of_run(runs / "extended/run") not in (digest(asked), None)


def test_rates_that_no_budget_changes_leave_it_a_fresh_run(tmp_path: Path) -> None:
    chosen = (*BIGRAM, "schedule=constant", "eval.every=2")
    assert train(tmp_path / "a", *chosen, "train.steps=6") == 0
    assert train(tmp_path / "a", *chosen, "train.steps=10", "resume=true") == 0
    assert train(tmp_path / "b", *chosen, "train.steps=10") == 0
    assert run_differences(tmp_path / "a/run", tmp_path / "b/run") == []
    assert "extended" not in summary(tmp_path / "a")
    assert digest_of_run(tmp_path / "a/run") == digest_of_run(tmp_path / "b/run")


@pytest.mark.parametrize("cut", [6, 7, 9])
def test_cut_off_and_resumed_it_is_the_same(
    cut: int, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(runs / "short/run", tmp_path / "a/run")
    shutil.copy(runs / "corpus.txt", tmp_path)
    assert cut_off(tmp_path / "a", cut, monkeypatch, *LONGER, "resume=true") == 143
    assert train(tmp_path / "a", *LONGER, "resume=true") == 0
    assert summary(tmp_path / "a")["extended"] == [6]
    found = run_differences(runs / "extended/run", tmp_path / "a/run")
    assert [line for line in found if "data.path" not in line] == []
    assert train(tmp_path / "a", *BIGRAM, "train.steps=12", "resume=true") == 0
    assert summary(tmp_path / "a")["extended"] == [6, 10]


def test_killed_between_its_configuration_and_a_checkpoint_it_is_known(
    runs: Path, tmp_path: Path
) -> None:
    shutil.copytree(runs / "short/run", tmp_path / "a/run")
    shutil.copy(runs / "corpus.txt", tmp_path)
    path = tmp_path / "a/run/config.yaml"
    path.write_text(path.read_text().replace("steps: 6", "steps: 10"))
    assert train(tmp_path / "a", *LONGER, "resume=true") == 0
    assert summary(tmp_path / "a")["extended"] == [6]


def test_a_budget_that_changes_before_its_end_counts_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cut_off(tmp_path / "a", 3, monkeypatch, *LONGER) == 143
    assert train(tmp_path / "a", *BIGRAM, "train.steps=6", "resume=true") == 0
    assert summary(tmp_path / "a")["extended"] == [3]


def test_a_fork_is_of_what_its_parent_was_at_that_step(runs: Path, tmp_path: Path) -> None:
    """At step 4 the one of 10 steps was one of 6; at its end it had been extended."""
    for name, parent, step in (
        *(("a", "extended", 4), ("b", "short", 4), ("c", "fresh", 4)),
        *(("d", "extended", 10), ("e", "fresh", 10)),
    ):
        typed = [f"fork_from={runs / parent / 'run'}@{step}", f"run_dir={tmp_path / name}"]
        typed += ["train.steps=12", f"cache={tmp_path / 'cache'}"]
        asked = read_settings(compose(typed, known=FILES))
        assert run(resumed_settings(forked_settings(asked, typed), typed)) == 0
    a, b, c, d, e = (read_summary(tmp_path / name) for name in "abcde")
    assert [each.extended for each in (a, b, c, d, e)] == [None, None, None, [6], None]
    of_a, of_b, of_c = ((each.lineage or [])[0].configuration for each in (a, b, c))
    assert of_a == of_b != of_c


def test_of_an_older_checkpoint_the_configuration_knows_the_budget(runs: Path) -> None:
    state = last_state(runs / "short")
    folder = RunFolder(runs / "short/run")
    older = {
        name: value for name, value in state.progress.items() if name not in ("budget", "extended")
    }
    found = with_budget(replace(state, progress=older), folder)
    assert found.progress == older | {"budget": {"steps": 6}}
    assert with_budget(state, folder) is state


ROW = {"step": 6, "tokens": 192}
SIX, EIGHT, TEN = ("steps", 6), ("steps", 8), ("steps", 10)


@pytest.mark.parametrize(
    ("schedule", "before", "now", "alike"),
    [
        (("schedule=cosine",), SIX, TEN, False),
        (("schedule=cosine",), SIX, SIX, True),
        (("schedule=cosine",), SIX, ("tokens", 192), True),  # the same end in another currency
        (("schedule=cosine",), SIX, ("tokens", 320), False),
        (("schedule=cosine", "schedule.warmup=2", "schedule.end=9"), SIX, TEN, True),
        (("schedule=constant",), SIX, ("tokens", 320), True),
        (("schedule=constant", "schedule.warmup=0.5"), SIX, TEN, False),
        (("schedule=constant", "schedule.warmup=3"), SIX, TEN, True),
        (("schedule=stable_decay", "schedule.warmup=2", "schedule.decay=2"), SIX, TEN, False),
        (("schedule=stable_decay", "schedule.warmup=2", "schedule.decay=2"), EIGHT, TEN, True),
        (("schedule=step", "schedule.at=[3]"), SIX, TEN, True),
        (("schedule=step",), SIX, TEN, False),
        (("schedule=constant", "train.batch_norm=frozen"), SIX, TEN, False),
    ],
)  # fmt: skip
def test_the_steps_so_far_decide(
    schedule: tuple[str, ...], before: tuple[str, float], now: tuple[str, float], alike: bool,
    tmp_path: Path,
) -> None:  # fmt: skip
    """By the schedule's factors and by when batch normalization is frozen, whatever their names."""
    chosen = settings(tmp_path / "a", *BIGRAM, *schedule)
    assert _trained_alike(chosen, before, now, 6, ROW) is alike
