"""How far a training is."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.common.values import fits, show
from harness.config.settings import CURRENCIES, Settings
from harness.evaluation.score import Score
from harness.runs.summary import Best, Scored

# Fields of a score: of documents, of a task, of a part, of a mix, and of one's own.
NOT_ALWAYS = (
    *("documents", "text_nats_per_token", "accuracy", "accuracy_error", "share", "texts", "own"),
    "sha256",
)


@dataclass
class Progress:
    """Counters and the best score; part of every checkpoint. seconds: without evaluation and
    saving. evaluation_seconds: of scoring validation. frozen: whether batch normalization's
    statistics are. saved_best: the best step at each of the last two checkpoints, either of which
    may be resumed from. kept_best: that at each checkpoint that is kept. beside: how many other
    jobs of a sweep there were at most while the seconds were counted. steps_before_fork,
    flops_before_fork: of the parent, where its steps cost other FLOPs. stream: of a corpus that is
    one, its position (`StreamedRows.state`). budget: that the last step had, its currency and
    amount. extended: as in `Summary`."""

    step: int = 0
    tokens: int = 0
    bytes: int = 0
    seconds: float = 0.0
    evaluation_seconds: float = 0.0
    best: dict[str, Any] | None = None
    frozen: bool = False
    saved_best: list[int] = field(default_factory=list)
    kept_best: list[int] = field(default_factory=list)
    beside: int = 0
    steps_before_fork: int = 0
    flops_before_fork: int = 0
    stream: dict[str, Any] | None = None
    budget: dict[str, float] | None = None
    extended: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Raises ValueError for counts that no training reaches, and a best score that lacks
        something. A NaN or infinite one, of a checkpoint of an earlier version, is none."""
        names = ("step", "tokens", "bytes", "seconds", "evaluation_seconds", "beside")
        most = dict.fromkeys(names, 2**63)
        most |= {"steps_before_fork": self.step + 1, "flops_before_fork": 10**40}
        for name, bound in most.items():
            if not 0 <= getattr(self, name) < bound:
                raise ValueError(f"progress.{name} is {show(getattr(self, name))}")
        if self.budget is not None and not (
            len(self.budget) == 1
            and all(name in CURRENCIES and 0 < of < math.inf for name, of in self.budget.items())
        ):
            raise ValueError(f"progress.budget is {show(self.budget)}")
        if not all(0 < step <= self.step for step in self.extended):
            raise ValueError(f"progress.extended is {show(self.extended)}")
        if self.best is not None:
            hints: dict[str, Any] = {"step": int, "nats": float, "nats_per_token": float}
            for name in (*Best.model_fields, *Scored.model_fields):
                hints.setdefault(name, float | None)
            hints |= {"own": dict[str, float | None], "texts": dict[str, dict[str, Any]]}
            for name, hint in hints.items():
                if name in NOT_ALWAYS and name not in self.best:
                    continue
                if name not in self.best or not fits(self.best[name], hint):
                    raise ValueError(f"progress.best.{name} is missing or of the wrong type")
            if not math.isfinite(self.best["nats"]):
                self.best = None

    def count_step(self, targets: NDArray[np.integer], token_bytes: NDArray[np.integer]) -> None:
        """One more step. targets: the ids that had a loss. token_bytes: (V,)."""
        self.step += 1
        self.tokens += len(targets)
        self.bytes += int(token_bytes[targets].sum())

    def update_best(self, score: Score) -> bool:
        """Whether the score of this step is the best so far. NaN and infinity never are."""
        is_best = math.isfinite(score.nats) and (
            self.best is None or score.nats < self.best["nats"]
        )
        if is_best:
            self.best = {"step": self.step, "nats": score.nats, **score.summary()}
        return is_best

    def out_of_patience(self, settings: Settings) -> bool:
        """Whether train.patience evaluations in a row brought no better score."""
        patience = settings.train.patience
        if patience is None:
            return False
        best = 0 if self.best is None else self.best["step"]
        return bool(self.step - best >= patience * settings.eval.every)
