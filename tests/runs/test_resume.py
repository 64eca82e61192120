"""A run that was cut off and resumed equals one that was not, bit for bit."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from harness.common.errors import RunFailure, UsageError
from harness.common.interrupt import INTERRUPTED, TERMINATED
from harness.config.settings import read_settings
from harness.diagnostics import drill
from harness.runs import checkpoint
from harness.runs.checkpoint import BestCheckpoint, Checkpoint, StepCheckpoint
from harness.runs.resume import resumed_settings
from harness.training import loop
from harness.training.run import run
from tests.small_runs import GPT_SMALL, SMALL, cut_off, losses, summary, trace, train
from tests.zoo_models import TRAINED, choice

DROPOUT = (*GPT_SMALL, "model.dropout=0.2", "train.accumulate=2")


# The kinds that have most to save, and the one that the other tests here do not train.
IN_SHORT = {"lstm", "wavenet"}


@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=[pytest.mark.long] * (x not in IN_SHORT)) for x in TRAINED]
)
def test_every_model_resumes_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    chosen = (*choice(name), "train.seq_len=32")
    train(tmp_path / "whole", *chosen)
    assert cut_off(tmp_path / "cut", 4, monkeypatch, *chosen) == TERMINATED
    assert summary(tmp_path / "cut")["status"] == "stopped"
    assert train(tmp_path / "cut", *chosen, "resume=true") == 0
    assert trace(tmp_path / "cut") == trace(tmp_path / "whole")
    samples = [(tmp_path / each / "run/samples.txt").read_bytes() for each in ("cut", "whole")]
    assert samples[0] == samples[1]  # cut at an evaluation: its block is not there twice
    for key in ("val", "test", "best"):
        assert summary(tmp_path / "cut")[key] == summary(tmp_path / "whole")[key]


@pytest.mark.parametrize("step", [0, 2, 3, 7])
def test_resumes_exactly_wherever_it_was_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    train(tmp_path / "whole", *DROPOUT)
    cut_off(tmp_path / "cut", step, monkeypatch, *DROPOUT)
    assert train(tmp_path / "cut", *DROPOUT, "resume=true") == 0
    assert trace(tmp_path / "cut") == trace(tmp_path / "whole")


FULL = (
    *("model=mlp", "model.norm=batch_norm", "model.bias=false", "model.n_hidden=16"),
    # The rate rises too far at step 3, and six evaluations later it stops.
    *("optimizer.lr=0.1", "schedule=step", "schedule.at=[3]", "schedule.factor=50"),
    *("train.ema=0.5", "train.accumulate=2", "train.patience=6"),
    *("train.steps=20", "eval.every=1", "checkpoint.every=5"),
)
LOSSES = {
    "nothing": lambda state: None,
    "the weights": lambda state: state.model.update(fresh(state.model, "weight")),
    "batch norm's averages": lambda state: state.model.update(fresh(state.model, "running")),
    "the optimizer's moments": lambda state: [
        value.zero_() for kept in state.optimizer["state"].values() for value in kept.values()
    ],
    "the moving average": lambda state: state.average.update(fresh(state.average, "weight")),
    "the step": lambda state: [
        values.update(step=state.step - 1) for values in (state.progress, vars(state))
    ],
    "the bytes": lambda state: state.progress.update(bytes=0),
    "the best so far": lambda state: state.progress.update(best=None),
    "the losses seen": lambda state: state.guard.update(skipped=3),
}


def fresh(weights: dict, kind: str) -> dict:
    """As training began with them, or nearly."""
    return {name: value + 0.01 for name, value in weights.items() if kind in name}


@pytest.fixture(scope="module")
def whole_and_cut(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run that has all there is of state and stops early, and the same cut off at step 6."""
    folder = tmp_path_factory.mktemp("full")
    train(folder / "whole", *FULL)
    assert summary(folder / "whole")["train"]["steps"] < 20
    with pytest.MonkeyPatch.context() as patch:
        cut_off(folder / "cut", 6, patch, *FULL)
    return folder / "whole", folder / "cut"


@pytest.mark.parametrize("lost", LOSSES)
def test_a_piece_of_state_left_out_is_noticed(
    whole_and_cut: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """The negative control: without it, comparing traces would prove nothing."""
    whole, cut = whole_and_cut
    shutil.copytree(cut, tmp_path / "cut")
    load = checkpoint.load

    def forgetful(folder: Path, kind: type[Checkpoint]) -> Checkpoint | None:
        state = load(folder, kind)
        if isinstance(state, StepCheckpoint):
            LOSSES[lost](state)
        return state

    monkeypatch.setattr(checkpoint, "load", forgetful)
    train(tmp_path / "cut", *FULL, "resume=true")

    def left(folder: Path) -> list:
        found = summary(folder)
        return [trace(folder), *(found[key] for key in ("best", "val", "test", "skipped_steps"))]

    assert (left(tmp_path / "cut") == left(whole)) == (lost == "nothing")


def test_stopped_during_an_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path / "whole", *GPT_SMALL)
    score, calls = loop.score_split, []

    def scoring(*arguments, **options):  # noqa: ANN002, ANN003, ANN202
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return score(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "score_split", scoring)
        assert train(tmp_path / "cut", *GPT_SMALL) == INTERRUPTED
    assert [row["step"] for row in trace(tmp_path / "cut")] == [0, 1, 2, 3]
    train(tmp_path / "cut", *GPT_SMALL, "resume=true")
    assert trace(tmp_path / "cut") == trace(tmp_path / "whole")


def killed_at_step_61(chosen: list[str], folder: Path) -> None:
    """A life that ends by SIGKILL while the batch of a step is drawn."""
    draw = loop.draw_batch

    def drawing(ids, seed, step, *rest):  # noqa: ANN001, ANN002, ANN202
        if step == 61:
            os.kill(os.getpid(), signal.SIGKILL)
        return draw(ids, seed, step, *rest)

    vars(loop)["draw_batch"] = drawing
    drill.train_or_resume(chosen, folder)


def test_killed_without_warning(tmp_path: Path) -> None:
    """SIGKILL in the middle: the newest whole checkpoint is gone on from, and torn or repeated
    lines of metrics.jsonl are mended."""
    long = (*GPT_SMALL, "train.steps=80", "eval.every=50", "checkpoint.every=7")
    train(tmp_path / "whole", *long)
    folder = tmp_path / "cut"
    own = [f"data.path={tmp_path / 'corpus.txt'}", f"cache={tmp_path / 'cache'}"]
    life = drill.start(killed_at_step_61, [*SMALL, *own, *long], folder)
    life.join()
    assert life.exitcode == -signal.SIGKILL, (folder / "output.txt").read_text()
    assert summary(folder)["status"] == "running"
    with (folder / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 61, "train/lo')
    assert train(folder, *long, "resume=true") == 0
    assert trace(folder) == trace(tmp_path / "whole")


def test_a_damaged_checkpoint_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    train(tmp_path / "whole", *DROPOUT)
    cut_off(tmp_path / "cut", 7, monkeypatch, *DROPOUT)
    newest = tmp_path / "cut/run/checkpoints/step-00000007.pt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    assert train(tmp_path / "cut", *DROPOUT, "resume=true") == 0
    assert trace(tmp_path / "cut") == trace(tmp_path / "whole")
    assert "damaged" in caplog.text


def test_with_every_checkpoint_damaged_nothing_starts_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off(tmp_path / "cut", 7, monkeypatch, *DROPOUT)
    for path in (tmp_path / "cut/run/checkpoints").glob("step-*.pt"):
        path.write_bytes(path.read_bytes()[:-1])
    before = (tmp_path / "cut/run/metrics.jsonl").read_bytes()
    with pytest.raises(RunFailure, match="damaged"):
        train(tmp_path / "cut", *DROPOUT, "resume=true")
    assert (tmp_path / "cut/run/metrics.jsonl").read_bytes() == before


def resume(folder: Path, *overrides: str) -> int:
    """As the command line does it: what is saved with the run, and over it what is asked for."""
    from harness.cli.hydra_app import compose

    overrides = (f"run_dir={folder / 'run'}", "resume=true", *overrides)
    return run(resumed_settings(read_settings(compose(list(overrides))), list(overrides)))


def test_resuming_needs_only_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path / "whole", *DROPOUT, "seed=3")
    cut_off(tmp_path / "cut", 5, monkeypatch, *DROPOUT, "seed=3")
    assert resume(tmp_path / "cut") == 0
    assert trace(tmp_path / "cut") == trace(tmp_path / "whole")


def test_a_finished_run_stays_as_it_is_and_can_be_prolonged(tmp_path: Path) -> None:
    flat = (*GPT_SMALL, "schedule=constant")
    train(tmp_path / "long", *flat, "train.steps=12")
    train(tmp_path / "a", *flat)
    before = (tmp_path / "a/run/metrics.jsonl").read_bytes()
    assert resume(tmp_path / "a") == 0
    assert (tmp_path / "a/run/metrics.jsonl").read_bytes() == before
    assert resume(tmp_path / "a", "train.steps=12") == 0
    assert losses(tmp_path / "a") == losses(tmp_path / "long")
    assert summary(tmp_path / "a")["train"]["steps"] == 12


@pytest.mark.parametrize(
    ("override", "field"),
    [
        ("model=bigram", "model"),
        ("model.n_embd=32", "model.n_embd: 16 → 32"),
        ("tokenizer=bytes", "tokenizer"),
        ("optimizer.lr=0.5", "optimizer.lr: 0.001 → 0.5"),
        ("seed=9", "seed: 0 → 9"),
        ("data=python_docs", "data"),
    ],
)
def test_resuming_something_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, override: str, field: str
) -> None:
    cut_off(tmp_path / "cut", 5, monkeypatch, *GPT_SMALL)
    with pytest.raises(UsageError, match="can't be resumed") as error:
        resume(tmp_path / "cut", override)
    assert field in str(error.value)


def test_another_corpus_under_the_same_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off(tmp_path / "cut", 5, monkeypatch, *GPT_SMALL)
    corpus = tmp_path / "corpus.txt"
    corpus.write_text(corpus.read_text() + "more")
    with pytest.raises(UsageError, match="corpus has changed"):
        resume(tmp_path / "cut")


def test_a_checkpoint_of_another_format_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", 0)
        cut_off(tmp_path / "cut", 5, patch, *GPT_SMALL)
    with pytest.raises(RunFailure, match="format 0; this code reads format"):
        resume(tmp_path / "cut")


def test_retention_keeps_two_steps_and_the_best(tmp_path: Path) -> None:
    train(tmp_path / "a", *GPT_SMALL, "checkpoint.every=1")
    names = sorted(path.name for path in (tmp_path / "a/run/checkpoints").iterdir())
    steps = [name for name in names if name.startswith("step") and name.endswith(".pt")]
    assert steps == ["step-00000007.pt", "step-00000008.pt"]
    assert all(name.startswith(("step", "best")) for name in names)
    assert checkpoint.list_steps(tmp_path / "a/run/checkpoints", BestCheckpoint)[0] in (4, 8)
    assert len(checkpoint.list_steps(tmp_path / "a/run/checkpoints", BestCheckpoint)) <= 3
    digest, name = (tmp_path / "a/run/checkpoints/step-00000008.pt.sha256").read_text().split()
    assert name == "step-00000008.pt"
    assert json.dumps(digest)
    assert len(digest) == 64


def test_a_failed_write_leaves_the_previous_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    save, calls = torch.save, []

    def failing(state: object, file: object) -> None:
        calls.append(1)
        if isinstance(state, dict) and state.get("kind") == "step" and state["step"] == 6:
            file.write(b"half")  # type: ignore[attr-defined]
            raise OSError(28, "No space left on device")
        save(state, file)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", failing)
        assert train(tmp_path / "a", *GPT_SMALL) == 1
    assert "No space left on device" in summary(tmp_path / "a")["error"]
    folder = tmp_path / "a/run/checkpoints"
    assert checkpoint.list_steps(folder, StepCheckpoint) == [3]
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    assert train(tmp_path / "a", *GPT_SMALL, "resume=true") == 0


def test_a_best_checkpoint_of_a_past_that_is_gone_never_counts(tmp_path: Path) -> None:
    """Killed after a later best was saved, resumed with a smaller budget: test is scored with the
    best weights of this run, not with those of the later step."""
    from harness.runs.load import load_run

    train(tmp_path / "a", *GPT_SMALL, "optimizer.lr=0.01")
    assert checkpoint.list_steps(tmp_path / "a/run/checkpoints", BestCheckpoint)[0] == 8
    (tmp_path / "a/run/checkpoints/step-00000008.pt").unlink()
    path = tmp_path / "a/run/summary.json"
    path.write_text(path.read_text().replace("finished", "running"))
    assert resume(tmp_path / "a", "train.steps=7") == 0
    assert summary(tmp_path / "a")["best"]["step"] == 7
    assert load_run(tmp_path / "a/run", "best", "cpu", []).step == 7


def test_the_summary_of_a_stopped_run_says_how_far_it_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off(tmp_path / "cut", 6, monkeypatch, *GPT_SMALL)
    found = summary(tmp_path / "cut")
    assert found["train"]["steps"] == 6
    assert found["train"]["tokens"] == 6 * 32
    assert found["best"]["step"] == 4
