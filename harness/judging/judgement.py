"""A judgement: pairs of trainings, one of each side, until the answer is settled."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import secrets
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.common.errors import RunFailure, UsageError
from harness.common.interrupt import STOPPED
from harness.compute.meta import meta_model
from harness.data.dataset import Dataset, require_whole_validation
from harness.judging.certified import certified_score, require_certified_code
from harness.judging.evidence import Evidence, weigh
from harness.judging.ledger import Ledger, Outcome, Try
from harness.judging.plan import plan_lines, training_seconds
from harness.judging.sides import SIDES, Side
from harness.referee.state import model_digest
from harness.runs.digest import digest
from harness.runs.folder import git
from harness.runs.summary import ParameterCount, TrainCost, read_summary
from harness.training.checks import check_settings
from harness.training.run import load_dataset, run
from zoo_tokenizers import Tokenizer

SOURCES = (Path(__file__).parents[1], Path(inspect.getfile(Tokenizer)).parent)


@dataclass(frozen=True)
class Judged:
    """A try and what came of it. scores: validation bits per byte, of each side. costs: parameters,
    and what its last training took. receipt: the digest of the ledger's last line."""

    trial: Try
    outcome: Outcome
    scores: dict[str, list[float]]
    costs: dict[str, dict[str, Any]]
    receipt: str


class StoppedBySignal(Exception):
    """A training was told to stop, and has saved."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}")
        self.code = code


@dataclass(frozen=True)
class Judge:
    """Two sides, and the ledger that their try is entered in. most: pairs of trainings."""

    sides: tuple[Side, Side]
    ledger: Ledger
    margin: float
    most: int

    def plan(self) -> list[str]:
        """What it may take; nothing if it is settled. Raises UsageError for what can't be
        judged."""
        datasets = self._datasets()
        entries = self.ledger.read()
        standing = entries.standing(self.identity())
        number, level = entries.next_level()
        if standing is not None:
            number, level = standing.number, standing.level
            if self._is_over(entries.outcome(number)):
                return [f"try {number} is over already: nothing is trained"]
        both = zip(self.sides, datasets, strict=True)
        seconds = sum(training_seconds(side.settings, dataset) for side, dataset in both)
        return plan_lines(number, level, self.most, seconds)

    def judge(self) -> Judged:
        """Train until it is settled, or the pairs are spent. A try that was cut off goes on; one
        that is settled is not tried again. Raises RunFailure, and StoppedBySignal."""
        trial = self.standing()
        if trial is None:
            for side in self.sides:
                require_certified_code(side)
            trial = self._enter()
        outcome = self.ledger.read().outcome(trial.number)
        if outcome is None or not self._is_over(outcome):
            outcome = self._train(trial)
        scores: dict[str, list[float]] = {name: [] for name in SIDES}
        costs = {}
        for name, side in zip(SIDES, self.sides, strict=True):
            for pair in range(1, outcome.pairs + 1):
                folder = self.folder(trial, name, pair)
                scores[name].append(certified_score(folder, side, "val"))
            found = read_summary(folder)
            count = found.parameters or ParameterCount()
            spent = found.train or TrainCost()
            costs[name] = {
                "parameters": count.total,
                "active": count.active,
                **spent.model_dump(),
            }
        return Judged(trial, outcome, scores, costs, self.ledger.read().receipt)

    def standing(self) -> Try | None:
        """The try of these sides in the ledger."""
        return self.ledger.read().standing(self.identity())

    def folder(self, trial: Try, name: str, pair: int) -> Path:
        """Of one training."""
        seed = trial.seed(name, pair)
        return self.ledger.folder / f"try-{trial.number}" / f"{name}-{pair}-s{seed}"

    def identity(self) -> str:
        """SHA-256 of all that a verdict depends on: settings, the code of the models and of the
        harness, the margin."""
        parts = [self.margin, code_digest()]
        for side in self.sides:
            parts += [
                digest(side.settings.replace(seed=0)),
                model_digest(meta_model(side.settings)),
            ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _is_over(self, outcome: Outcome | None) -> bool:
        """Settled, or all pairs are trained; more --seeds go on."""
        return outcome is not None and (outcome.verdict is not None or outcome.pairs >= self.most)

    def _datasets(self) -> list[Dataset]:
        found = []
        for side in self.sides:
            check_settings(side.settings)
            dataset = load_dataset(side.settings)
            require_whole_validation(dataset)
            if not dataset.tokenizer.lossless:
                raise UsageError(
                    f"{side.text}: tokenizer={side.settings.names.tokenizer} is lossy: it has no "
                    "bits per byte"
                )
            found.append(dataset)
        return found

    def _enter(self) -> Try:
        """Count the try, before anything of it is trained. Of its seeds nothing is known before."""
        with self.ledger.adding() as (entries, add):
            number, level = entries.next_level()
            entry = add(
                "try",
                number=number,
                candidate=self.sides[0].text,
                baseline=self.sides[1].text,
                identity=self.identity(),
                margin=self.margin,
                level=level,
                key=secrets.token_hex(16),
                git=git(),
            )
            assert isinstance(entry, Try)
            return entry

    def _train(self, trial: Try) -> Outcome:
        differences: list[float] = []
        while True:
            pair = len(differences) + 1
            scores = [
                self._score(trial, name, side, pair)
                for name, side in zip(SIDES, self.sides, strict=True)
            ]
            differences.append(scores[0] - scores[1])
            evidence = weigh(differences, trial.margin, trial.level)
            print(look_line(evidence), file=sys.stderr)
            if evidence.verdict is not None or pair >= self.most:
                break
        entry = self.ledger.append(
            "outcome",
            number=trial.number,
            verdict=evidence.verdict,
            pairs=evidence.pairs,
            mean=evidence.mean,
            low=evidence.low if math.isfinite(evidence.low) else None,
            high=evidence.high if math.isfinite(evidence.high) else None,
        )
        assert isinstance(entry, Outcome)
        return entry

    def _score(self, trial: Try, name: str, side: Side, pair: int) -> float:
        """Validation bits per byte of one training: an ordinary run, which is begun, gone on with,
        or found finished."""
        folder = self.folder(trial, name, pair)
        settings = side.settings.replace(
            seed=trial.seed(name, pair), run_dir=str(folder), resume="auto"
        )
        with redirect_stdout(sys.stderr):  # stdout is for the verdict
            code = run(settings, candidate=True, reads_test=False)
        if code in STOPPED:
            print("the judgement goes on by the same command", file=sys.stderr)
            raise StoppedBySignal(code)
        if code:
            error = read_summary(folder).error
            raise RunFailure(
                f"no verdict: a training of {side.text} failed ({error}); the try stays counted, "
                f"and goes on by the same command ({folder})"
            )
        return certified_score(folder, side, "val")


def look_line(evidence: Evidence) -> str:
    """What is known after a pair."""
    line = f"pair {evidence.pairs}: difference {evidence.mean:+.4f} bits per byte"
    if math.isfinite(evidence.low):
        line += f", between {evidence.low:+.4f} and {evidence.high:+.4f}"
    return f"{line}: {evidence.verdict or 'not settled'}"


def code_digest() -> str:
    """SHA-256 of the harness's own source. One judgement is made by one code."""
    found = hashlib.sha256()
    for folder in SOURCES:
        for path in sorted(folder.rglob("*.py")):
            found.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return found.hexdigest()
