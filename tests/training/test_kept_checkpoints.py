"""Which checkpoints stay, and what they take."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from harness.common.errors import UsageError
from harness.config.settings import CheckpointSettings, read_settings
from harness.diagnostics.comparison import run_differences
from harness.evaluation.score import score_split
from harness.runs import checkpoint
from harness.runs.checkpoint import BestCheckpoint, StepCheckpoint
from harness.runs.load import load_run
from harness.training import disk
from harness.training.checkpoints import is_kept
from tests.conftest import Ended
from tests.small_runs import GPT_SMALL, cut_off, rows, settings, train

Command = Callable[..., Ended]
EACH = (*GPT_SMALL, "eval.every=2", "checkpoint.every=2", "optimizer.lr=1e-2")


def steps(folder: Path, kind: type = StepCheckpoint) -> list[int]:
    return sorted(checkpoint.list_steps(folder / "run/checkpoints", kind))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept") / "all"
    assert train(folder, *EACH, "checkpoint.keep=all") == 0
    return folder


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        ("latest", []),
        ("all", list(range(10))),
        ("log", [1, 2, 4, 8]),
        ([0, 3, 9], [0, 3, 9]),
    ],
)
def test_which_are_kept(keep: str | list[int], kept: list[int]) -> None:
    plan = CheckpointSettings(every=2, keep=keep)  # type: ignore[arg-type]
    assert [step for step in range(10) if is_kept(step, plan)] == kept


def test_a_policy_changes_no_number(recorded: Path, tmp_path: Path) -> None:
    """Steps that are kept are saved whatever `every` says; the newest two stay while it trains."""
    (tmp_path / "corpus.txt").write_bytes((recorded.parent / "corpus.txt").read_bytes())
    assert train(tmp_path / "list", *EACH, "checkpoint.keep=[0,3]", "checkpoint.every=5") == 0
    assert steps(recorded) == [2, 4, 6, 8]
    assert steps(tmp_path / "list") == [0, 3, 5, 8]
    found = run_differences(recorded / "run", tmp_path / "list/run")
    # The last of the one was saved before the evaluation of its step.
    assert [line for line in found if "data.path" not in line and "progress.best" not in line] == []
    # With each the best weights as of its step: that of step 2 was saved before its evaluation.
    assert steps(recorded, BestCheckpoint) == [0, 2, 4, 6, 8]


@pytest.mark.long
def test_a_resumed_run_keeps_them(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "corpus.txt").write_bytes((recorded.parent / "corpus.txt").read_bytes())
    cut_off(tmp_path / "cut", 5, monkeypatch, *EACH, "checkpoint.keep=log")
    assert steps(tmp_path / "cut") == [1, 2, 4, 5]
    newest = tmp_path / "cut/run/checkpoints/step-00000005.pt"
    newest.write_bytes(b"damaged")
    assert train(tmp_path / "cut", *EACH, "checkpoint.keep=log", "resume=true") == 0
    assert steps(tmp_path / "cut") == [1, 2, 4, 6, 8]  # of 5 there is a newer truth, or none
    found = run_differences(recorded / "run", tmp_path / "cut/run")
    assert [line for line in found if "data.path" not in line and "progress.best" not in line] == []


@pytest.mark.parametrize("wrong", ["some", "[1,-2]", "[a]", "3", "true"])
def test_no_such_policy(wrong: str, tmp_path: Path) -> None:
    plain = settings(tmp_path / "x").plain()
    plain["checkpoint"]["keep"] = {"[1,-2]": [1, -2], "[a]": ["a"], "3": 3, "true": True}.get(
        wrong, wrong
    )
    with pytest.raises(UsageError, match=r"checkpoint\.keep=.* is none of latest, all, log"):
        read_settings(plain)


@pytest.mark.long
def test_what_they_take_is_said_before(recorded: Path, tmp_path: Path) -> None:
    """Within a tenth of what they took, tensors of a small model being most of a file or not."""
    (tmp_path / "corpus.txt").write_bytes((recorded.parent / "corpus.txt").read_bytes())
    large = (*EACH, "checkpoint.keep=all", "model.n_embd=64", "train.steps=4")
    chosen = settings(tmp_path / "large", *large)
    assert train(tmp_path / "large", *large) == 0
    folder = tmp_path / "large/run/checkpoints"
    vocabulary = load_run(tmp_path / "large/run", "latest", "cpu", []).tokenizer.vocab_size
    line = disk.checkpoints_to_keep(chosen, vocabulary)
    assert line is not None
    said = float(line.partition("each takes ")[2].partition(" MB")[0]) * 1e6
    sizes = [path.stat().st_size for path in folder.glob("step-*.pt")]
    assert len(sizes) == 2
    assert "and 2 of them" in line
    assert abs(said / max(sizes) - 1) < 0.15
    assert (
        disk.checkpoints_to_keep(chosen.replace(checkpoint=CheckpointSettings(every=1)), 9) is None
    )
    seconds = chosen.train.replace(steps=None, seconds=9.0)
    line = disk.checkpoints_to_keep(chosen.replace(train=seconds), vocabulary)
    assert "not known of a budget of seconds" in str(line)
    endless = chosen.train.replace(steps=10**9)
    with pytest.raises(UsageError, match=r"are free.*: keep fewer"):
        disk.checkpoints_to_keep(chosen.replace(train=endless), vocabulary)


def test_every_checkpoint_is_scored_as_in_training(recorded: Path, command: Command) -> None:
    ended = command("evaluate", recorded / "run", "--all-checkpoints", "--json")
    assert ended.code == 0, ended.err
    found = {row["step"]: row for row in map(json.loads, ended.out.splitlines())}
    trained = {row["step"]: row["val/nats_per_token"] for row in rows(recorded) if row["step"]
               and "val/nats_per_token" in row}  # fmt: skip
    assert {step: row["nats_per_token"] for step, row in found.items()} == trained
    table = command("evaluate", recorded / "run", "--all-checkpoints").out
    assert [line.endswith("lowest") for line in table.splitlines()] == [False] * 4 + [True]


def test_a_mean_of_weights(recorded: Path, command: Command) -> None:
    """Against a mean computed here; and of one point it is the point."""
    ended = command("evaluate", recorded / "run", "--average", "last:3", "--json")
    assert ended.code == 0, ended.err
    weights = [
        torch.load(recorded / f"run/checkpoints/step-0000000{step}.pt", weights_only=True)["model"]
        for step in (4, 6, 8)
    ]
    mean = {
        name: torch.stack([each[name].double() for each in weights]).mean(0).to(value.dtype)
        for name, value in weights[0].items()
    }
    own = load_run(recorded / "run", "latest", "cpu", [])
    own.model.load_state_dict(mean)
    val = own.dataset().val
    assert val is not None
    stride = own.settings.eval.stride
    score = score_split(own.model, val, own.tokenizer, own.compute, stride).nats_per_token
    said = json.loads(ended.out)
    assert said["nats_per_token"] == pytest.approx(score, rel=1e-9)
    assert (said["average"], said["split"]) == ("last:3", "val")


def test_one_line_for_what_is_not_there(
    recorded: Path, finished_run: Path, command: Command
) -> None:
    for arguments, message in (
        (("--average", "last:9"), "has 4 whole checkpoints, of steps 2, 4, 6, 8"),
        (("--average", "5"), "--average 5 should be last:N"),
        (("--checkpoint", "3"), "no checkpoint of step 3; it has those of 2, 4, 6, 8"),
        (("--checkpoint", "4", "--all-checkpoints"), "go without --calibration, --context"),
        (("--all-checkpoints", "--text", "a=b"), "--all-checkpoints has no meaning with --text"),
        (("--average", "last:2", "--text", "a=b"), "--average has no meaning with --text"),
        (("--all-checkpoints", "--tokens", "x"), "--tokens is for one checkpoint"),
    ):
        ended = command("evaluate", recorded / "run", *arguments)
        assert (ended.code, message in ended.err) == (2, True), ended.err
    ended = command("evaluate", finished_run, "--all-checkpoints")
    assert "only the newest are there" in ended.out
    for step, row in ((4, "4"), (6, "6")):
        ended = command("evaluate", recorded / "run", "--checkpoint", row, "--split", "val")
        assert f"step              {step}" in ended.out
