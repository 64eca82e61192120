"""What fails after the last step, or beside the steps, costs nothing that was trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.common.errors import RunFailure
from harness.evaluation.score import Score
from harness.loggers.local import Local
from harness.runs.summary import Best, Scored
from harness.training import loop
from harness.training.progress import Progress
from tests.conftest import Ended
from tests.small_runs import GPT_SMALL, summary, trace, train
from tests.training.processes import steps_saved

CHOSEN = ("model=bigram",)


def failing(at: int, error: Exception, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, but for its call of that number."""
    calls: list[int] = []

    def called(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == at:
            raise error
        return function(*arguments, **options)

    return called


VANISHED = FileNotFoundError(2, "No such file or directory", "corpus.txt")


def test_the_test_split_can_be_scored_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(loop, "score_split", failing(4, VANISHED, loop.score_split))
        assert train(tmp_path / "a", *CHOSEN) == 1
    found = summary(tmp_path / "a")
    assert found["status"] == "failed"
    assert found["val"] is not None
    assert found["missing"].keys() == {"test"}
    assert "corpus.txt" in found["missing"]["test"]
    assert "all but test is saved; to do the rest: run_dir=" in caplog.text
    assert steps_saved(tmp_path / "a") == [8, 6]
    assert train(tmp_path / "a", *CHOSEN, "resume=true") == 0
    train(tmp_path / "whole", *CHOSEN)
    assert trace(tmp_path / "a") == trace(tmp_path / "whole")
    done, whole = summary(tmp_path / "a"), summary(tmp_path / "whole")
    assert "missing" not in done
    for name in ("status", "test", "val", "best"):
        assert done[name] == whole[name]


def test_the_blocks_can_be_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The corpus is read for them."""
    write = loop.write_test_blocks
    with monkeypatch.context() as patch:
        patch.setattr(loop, "write_test_blocks", failing(1, VANISHED, write))
        assert train(tmp_path / "a", *CHOSEN) == 0
    found = summary(tmp_path / "a")
    assert (found["status"], list(found["missing"])) == ("finished", ["test_nats.json"])
    assert not (tmp_path / "a/run/test_nats.json").exists()
    assert train(tmp_path / "a", *CHOSEN, "resume=true") == 0
    assert (tmp_path / "a/run/test_nats.json").exists()
    assert "missing" not in summary(tmp_path / "a")


def test_a_sample_that_fails_costs_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path / "whole", *CHOSEN)
    sample = failing(2, ValueError("no such id"), loop.sample_text)
    monkeypatch.setattr(loop, "sample_text", sample)
    assert train(tmp_path / "a", *CHOSEN) == 0
    assert summary(tmp_path / "a")["missing"] == {"sample of step 4": "ValueError: no such id"}
    assert trace(tmp_path / "a") == trace(tmp_path / "whole")
    assert (tmp_path / "a/run/samples.txt").read_text().count("=== step") == 2


def test_what_can_not_be_made_any_more_stays_missing_and_keeps_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The weights of an earlier step are gone; the last ones are there."""
    auto = (*CHOSEN, "resume=auto")
    lost = {"sample of step 4": "ValueError: no such id"}
    with monkeypatch.context() as patch:
        patch.setattr(loop, "sample_text", failing(2, ValueError("no such id"), loop.sample_text))
        patch.setattr(loop, "score_split", failing(4, VANISHED, loop.score_split))
        assert train(tmp_path / "a", *auto) == 1
    assert summary(tmp_path / "a")["missing"].keys() == {"test", *lost}
    assert "all but test is saved" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr(loop, "sample_text", failing(1, ValueError("no such id"), loop.sample_text))
        assert train(tmp_path / "a", *auto) == 0
    assert summary(tmp_path / "a")["missing"].keys() == {"sample of step 8", *lost}
    assert train(tmp_path / "a", *auto) == 0
    assert summary(tmp_path / "a")["missing"] == lost
    capsys.readouterr()
    assert train(tmp_path / "a", *auto) == 0
    assert "is finished already" in capsys.readouterr().err


def test_an_evaluation_that_fails_costs_no_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rare = (*CHOSEN, "checkpoint.every=100")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "score_split", failing(2, VANISHED, loop.score_split))
        assert train(tmp_path / "a", *rare) == 1
    assert summary(tmp_path / "a")["status"] == "failed"
    assert steps_saved(tmp_path / "a") == [4]
    assert train(tmp_path / "a", *rare, "resume=true") == 0


def test_a_logger_that_can_not_close_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Local, "close", failing(1, ValueError("oh"), Local.close))
    assert train(tmp_path / "a", *CHOSEN) == 0
    assert summary(tmp_path / "a")["status"] == "finished"
    assert "Local: ValueError: oh" in caplog.text


def test_the_error_is_the_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Local, "close", failing(1, ValueError("oh"), Local.close))
    monkeypatch.setattr(loop, "score_split", failing(1, RunFailure("why"), loop.score_split))
    assert train(tmp_path / "a", *CHOSEN) == 1
    assert capsys.readouterr().err.splitlines()[-2:] == ["Local: ValueError: oh", "error: why"]


def test_a_report_that_fails_costs_nothing(
    command: Callable[..., Ended],
    small_text: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from harness.training import sweep

    monkeypatch.setattr(sweep, "write_report", failing(1, ValueError("oh"), sweep.write_report))
    folder = tmp_path / "sweep"
    ended = command(
        *("train", "-m", "seed=0", "model=bigram", "data=text", f"data.path={small_text}"),
        *(f"cache={tmp_path / 'cache'}", "train.steps=1", "train.seq_len=16", "device=cpu"),
        *("eval.sample_tokens=0", f"hydra.sweep.dir={folder}"),
    )
    assert ended.code == 1
    assert f"harness.compare {folder} --out {folder}/report.html" in ended.err
    assert "Traceback" not in ended.err


# NaN and infinity


def scored(monkeypatch: pytest.MonkeyPatch, *nats: float) -> list[int]:
    """The scores of a training in turn; the rest is as it is. Returns the calls."""
    score, calls = loop.score_split, []

    def scoring(*arguments: Any, **options: Any) -> Score:
        calls.append(1)
        found = score(*arguments, **options)
        return replace(found, nats=nats[len(calls) - 1]) if len(calls) <= len(nats) else found

    monkeypatch.setattr(loop, "score_split", scoring)
    return calls


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_first_score_wins_nothing_if_it_is_not_finite(
    bad: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored(monkeypatch, bad, 700.0, bad)
    assert train(tmp_path / "a", *CHOSEN) == 0
    found = summary(tmp_path / "a")
    assert found["best"]["step"] == 4
    assert found["test"]["nats_per_token"] > 0


def test_without_a_finite_score_the_test_split_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = scored(monkeypatch, math.nan, math.inf, math.nan)
    assert train(tmp_path / "a", *CHOSEN) == 0
    assert len(calls) == 3
    found = summary(tmp_path / "a")
    assert (found["status"], found["best"], found["val"], found["test"]) == ("finished",) + (
        None,
    ) * 3
    assert found["missing"].keys() == {"test"}
    assert caplog.text.count("missing: test (no validation score was finite") == 1
    assert train(tmp_path / "a", *CHOSEN, "resume=true") == 0
    assert len(calls) == 3  # nothing more can be made


def test_patience_counts_scores_that_are_not_finite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored(monkeypatch, *[math.nan] * 9)
    assert train(tmp_path / "a", *CHOSEN, "eval.every=1", "train.patience=3") == 0
    assert summary(tmp_path / "a")["train"]["steps"] == 3


def test_a_best_score_that_is_nan_is_none() -> None:
    """In a checkpoint of an earlier version."""
    names = (*Best.model_fields, *Scored.model_fields)
    best = dict.fromkeys(names, 1.0) | {"step": 0, "nats": math.nan, "own": {"mine": 1.0}}
    best |= {"texts": {"a": {"tokens": 1}}}
    assert Progress(best=best).best is None
    assert Progress(best=best | {"nats": 1.0}).best is not None


@pytest.mark.parametrize("more", [(), ("train.on_non_finite=skip",), ("optimizer=sgd",)])
def test_a_huge_rate_ends_in_words(
    more: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever uses the weights looks first: scores, samples, checkpoints, the guard."""
    wild = ("optimizer.lr=1e38", "eval.every=1", "train.clip=null", "train.steps=40")
    assert train(tmp_path / "a", *GPT_SMALL, *wild, *more) == 1
    assert summary(tmp_path / "a")["status"] == "non_finite"
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "Traceback" not in (tmp_path / "a/run/train.log").read_text()
