"""Whole judgements by the command: settled, cut off, repeated, and what is never read."""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import judge
from harness.common.errors import RunFailure
from harness.data.dataset import Dataset
from harness.evaluation import score
from harness.judging import certified, judgement, plan
from harness.judging.ledger import FILE, Ledger
from harness.judging.online import level_of_try
from harness.referee import verify
from harness.runs.summary import read_summary
from harness.runs.test_reads import FILE as READS
from harness.training import loop
from tests.conftest import Ended
from tests.small_runs import TEXT

SMALL = (
    *("data=text", "data.split=[0.9,0.05,0.05]", "device=cpu", "precision=fp32", "observe=off"),
    *("train.steps=6", "train.batch_size=2", "train.seq_len=16", "eval.every=6"),
    *("eval.sample_tokens=0", "train.clip=null"),
)
BIGRAM, MLP = "model=bigram optimizer.lr=1e-3", "model=mlp model.n_embd=4 model.n_hidden=8"
PEEK = "model._target_=tests.referee.cheats.models.LongTexts trust=[tests]"


class Bench:
    """Runs the command in a folder; notes which splits are scored."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self._patch = folder, patch
        self.scored: list[str] = []
        (folder / "corpus.txt").write_text(TEXT)
        patch.setattr(verify, "SECONDS", 0.05)
        patch.setattr(verify, "TARGETS", 200)
        patch.setattr(plan, "MEASURED", 1)
        patch.setattr(plan, "WARM_UP", 0)
        patch.setattr("harness.diagnostics.bench.WARM_UP", 0)
        original = score.score_split

        def spied(model: Any, split: Any, *rest: Any, **more: Any) -> Any:
            self.scored.append(self.names.get(id(split), "other"))
            return original(model, split, *rest, **more)

        self.names: dict[int, str] = {}
        init = Dataset.__init__

        def known(dataset: Dataset, *rest: Any, **more: Any) -> None:
            init(dataset, *rest, **more)
            for name in ("train", "val", "test"):
                self.names[id(getattr(dataset, name))] = name
            self.kept.append(dataset)

        self.kept: list[Dataset] = []  # else an id may be that of another split later
        patch.setattr(Dataset, "__init__", known)
        for module in (loop, certified, plan):
            patch.setattr(module, "score_split", spied)

    def run(self, *arguments: str, ledger: str = "ledger") -> Ended:
        own = (f"data.path={self.folder / 'corpus.txt'}", f"cache={self.folder / 'cache'}")
        given = [*arguments, "--ledger", str(self.folder / ledger)]
        out, err = io.StringIO(), io.StringIO()
        with self._patch.context() as patch:
            patch.setattr(sys, "argv", ["judge", *given[:2], *SMALL, *own, *given[2:]])
            patch.chdir(self.folder)
            with (
                contextlib.redirect_stdout(out),
                contextlib.redirect_stderr(err),
                pytest.raises(SystemExit) as ended,
            ):
                judge.main()
        return Ended(int(ended.value.code or 0), out.getvalue(), err.getvalue())

    def cut_off(self, batch: int, *arguments: str, ledger: str) -> Ended:
        """Stopped by SIGTERM while the batch of that number, over all trainings, is drawn."""
        draw, count = loop.draw_batch, 0

        def drawing(*given: Any) -> Any:
            nonlocal count
            count += 1
            if count == batch:
                os.kill(os.getpid(), signal.SIGTERM)
            return draw(*given)

        with self._patch.context() as patch:
            patch.setattr(loop, "draw_batch", drawing)
            return self.run(*arguments, ledger=ledger)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with pytest.MonkeyPatch.context() as patch:
        yield Bench(tmp_path_factory.mktemp("judging"), patch)


@pytest.fixture(scope="module")
def settled(bench: Bench) -> Ended:
    """A learning rate at which the bigram learns nothing is worse than one at which it does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secrets, "token_hex", lambda size: "00" * size)
        return bench.run(BIGRAM, "model=bigram optimizer.lr=1e-1", "--json")


def test_a_true_difference_is_found(settled: Ended) -> None:
    found = json.loads(settled.out)
    assert settled.code == 3, settled.err
    assert found["verdict"] == "worse"
    assert found["level"] == pytest.approx(level_of_try(1, 0))
    assert 3 <= found["pairs"] <= 8
    scores = found["val_bits_per_byte"]
    differences = [a - b for a, b in zip(scores["candidate"], scores["baseline"], strict=True)]
    assert len(differences) == found["pairs"]
    assert found["difference"]["mean"] == pytest.approx(sum(differences) / len(differences))
    assert 0 < found["difference"]["low"] < found["difference"]["mean"]
    for line in ("try 1", "at most 20 pairs", "a difference of 4σ"):
        assert line in settled.err


def test_its_trainings_are_ordinary_runs_that_never_read_test(bench: Bench, settled: Ended) -> None:
    folders = sorted((bench.folder / "ledger" / "try-1").iterdir())
    assert len(folders) == 2 * json.loads(settled.out)["pairs"]
    for folder in folders:
        summary = read_summary(folder)
        assert (summary.status, summary.test, summary.candidate) == ("finished", None, True)
        assert not (folder / "test_nats.json").exists()
        assert (folder / "certificate.json").exists()
    assert bench.scored
    assert set(bench.scored) == {"val"}
    assert len({read_summary(folder).seed for folder in folders}) == len(folders)


def test_the_same_command_shows_the_verdict_again(bench: Bench, settled: Ended) -> None:
    before = (bench.folder / "ledger" / FILE).read_bytes()
    again = bench.run(BIGRAM, "model=bigram optimizer.lr=1e-1", "--json")
    assert (again.code, again.out) == (settled.code, settled.out)
    assert "nothing is trained" in again.err
    assert (bench.folder / "ledger" / FILE).read_bytes() == before


def test_a_judgement_that_was_cut_off_goes_on(
    bench: Bench, settled: Ended, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its third training: 12 batches, and 1 of measuring for each side, come before."""
    monkeypatch.setattr(secrets, "token_hex", lambda size: "00" * size)
    command = (BIGRAM, "model=bigram optimizer.lr=1e-1", "--json")
    stopped = bench.cut_off(17, *command, ledger="cut")
    assert stopped.code == 143
    assert "goes on by the same command" in stopped.err
    assert stopped.out == ""
    went_on = bench.run(*command, ledger="cut")
    assert went_on.code == settled.code
    one, other = json.loads(went_on.out), json.loads(settled.out)
    assert one["val_bits_per_byte"] == other["val_bits_per_byte"]
    assert len(Ledger(bench.folder / "cut").read().tries) == 1


def test_another_margin_is_another_try(bench: Bench, settled: Ended) -> None:
    """And with too few pairs there is no verdict, until more are allowed."""
    command = (BIGRAM, "model=bigram optimizer.lr=1e-1", "--margin", "0.5")
    ended = bench.run(*command, "--seeds", "2")
    assert ended.code == 5
    assert "not settled by 2 pairs" in ended.out
    trial = Ledger(bench.folder / "ledger").read().tries[-1]
    assert (trial.number, trial.level) == (2, pytest.approx(level_of_try(2, 0)))
    more = bench.run(*command)
    assert more.code == 3
    assert "try 2 of 2" in more.out


def test_the_plan_trains_nothing(bench: Bench) -> None:
    ended = bench.run(BIGRAM, MLP, "--plan", ledger="none")
    assert ended.code == 0
    assert "a difference of 8σ" in ended.out
    assert not (bench.folder / "none").exists()


def test_test_is_read_by_final_alone_once_and_logged(bench: Bench, settled: Ended) -> None:
    command = (BIGRAM, "model=bigram optimizer.lr=1e-1", "--final")
    early = bench.run(BIGRAM, MLP, "--final", ledger="none")
    assert early.code == 2
    assert "not judged yet" in early.err
    assert "test" not in bench.scored
    ledger = Ledger(bench.folder / "ledger")
    real = certified.score_split

    def seen_first(*given: Any, **more: Any) -> Any:
        assert ledger.read().readings(1), "test is read before that is logged"
        return real(*given, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certified, "score_split", seen_first)
        ended = bench.run(*command)
    assert ended.code == 0, ended.err
    assert "test of try 1: candidate" in ended.out
    assert "test" in bench.scored
    for folder in (bench.folder / "ledger" / "try-1").iterdir():
        assert len((folder / READS).read_text().splitlines()) == 1
    scored = len(bench.scored)
    again = bench.run(*command)
    assert again.code == 2
    assert "is read once" in again.err
    assert len(bench.scored) == scored


def test_a_cheat_is_not_judged(bench: Bench) -> None:
    ended = bench.run(
        f"model=gru model.n_layer=1 model.n_embd=8 model.n_hidden=8 {PEEK}", BIGRAM, ledger="cheat"
    )
    assert (ended.code, ended.out) == (1, "")
    (line,) = [line for line in ended.err.splitlines() if line.startswith("error")]
    assert "is not judged, its certificate failed causality" in line
    assert not (bench.folder / "cheat" / FILE).exists()


def test_a_training_that_scores_otherwise_fed_token_by_token_ends_it(
    bench: Bench, settled: Ended, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = next((bench.folder / "ledger" / "try-1").iterdir())
    (folder / "certificate.json").unlink()
    real = certified.scored_again

    def worse(
        decoder: Any, split: Any, tokenizer: Any, reported: Any, *rest: Any, **more: Any
    ) -> Any:
        reported.token_nats[:] -= 0.1
        return real(decoder, split, tokenizer, reported, *rest, **more)

    monkeypatch.setattr(certified, "scored_again", worse)
    ended = bench.run(BIGRAM, "model=bigram optimizer.lr=1e-1")
    assert ended.code == 1
    assert "is not judged, its certificate failed sequential" in ended.err
    (folder / "certificate.json").unlink()


def test_a_training_that_fails_gives_no_verdict(bench: Bench) -> None:
    real = judgement.run

    def failing(*given: Any, **more: Any) -> int:
        def drawing(*rest: Any) -> Any:
            raise RunFailure("no such luck")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "draw_batch", drawing)
            return real(*given, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judgement, "run", failing)
        ended = bench.run(BIGRAM, MLP, ledger="failed")
    assert (ended.code, ended.out) == (1, "")
    assert f"no verdict: a training of {BIGRAM} failed (no such luck)" in ended.err
    entries = Ledger(bench.folder / "failed").read()
    assert len(entries.tries) == 1
    assert entries.outcome(1) is None


WRONG = {
    "no quotes closed": (("'model=gpt", "gpt"), "quotation"),
    "no such model": (
        ("gptt", "gpt"),
        "neither a file of conf/model nor a class (mine.X). Did you",
    ),
    "nothing": ((" ", "gpt"), "a side is a model's name"),
    "its own seed": (("model=gpt seed=1", "gpt"), "seed=1: the judge chooses seed"),
    "its own folder": (("gpt", "mlp", "run_dir=x"), "run_dir=x: the judge chooses run_dir"),
    "its own budget": (("model=gpt train.steps=9", "gpt"), "is for both sides"),
    "another text": (("model=gpt data.path=other.txt", "gpt"), "data.path=other.txt is for both"),
    "another stride": (("model=gpt eval.stride=1", "gpt"), "eval must be that of both sides"),
    "larger steps": (("model=gpt train.accumulate=2", "gpt"), "64 tokens for the candidate and 32"),
    "no margin": (("gpt", "mlp", "--margin", "0"), "--margin 0.0 must be above 0"),
    "one seed": (("gpt", "mlp", "--seeds", "1"), "--seeds 1 must be at least 2"),
    "no validation": (("gpt", "mlp", "data.split=[0.9,0,0.1]"), "leaves none"),
    "a part of it": (("gpt", "mlp", "eval.part=0.5"), "eval.part=0.5 leaves a part"),
    "wrong setting": (("model=gpt model.n_layr=3", "gpt"), "Did you mean model.n_layer"),
    "both": (("gpt", "mlp", "--plan", "--final"), "not allowed with"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_usage_is_one_line(bench: Bench, name: str) -> None:
    arguments, words = WRONG[name]
    ended = bench.run(*arguments, ledger="wrong")
    (line,) = ended.err.splitlines()
    assert ended.code == 2
    assert line.startswith("error: ")
    assert words in line
    assert not (bench.folder / "wrong").exists()


def test_a_budget_must_be_given(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    without = tuple(each for each in SMALL if not each.startswith("train.steps"))
    monkeypatch.setattr(sys.modules[__name__], "SMALL", without)
    ended = bench.run("gpt", "mlp", ledger="wrong")
    assert ended.code == 2
    assert "give the budget of each training, one of train.steps" in ended.err


def test_an_edited_ledger_judges_nothing(bench: Bench) -> None:
    ledger = bench.folder / "edited"
    ledger.mkdir()
    (ledger / FILE).write_text("{}\n")
    with pytest.raises(RunFailure):
        Ledger(ledger).read()
    ended = bench.run(BIGRAM, MLP, ledger="edited")
    assert ended.code == 1
    assert "line 1 is no entry of a ledger" in ended.err
