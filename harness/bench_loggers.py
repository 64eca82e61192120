"""What loggers cost the training whose numbers they take: `python -m harness.bench logger=[wandb]`.

They live in processes of their own, so all that they can take from a step is the machine. Their
processes are halted and let go by turns, a second each: the ratio of a second's steps with them to
the next one's without. What they missed while halted they make up for, so they do twice the work.
"""

from __future__ import annotations

import os
import signal
import statistics
from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby
from time import perf_counter
from typing import Any

from harness.interrupt import Interrupt
from harness.loggers.followers import Followers

TURN = 1.0  # seconds; some of the loggers' looks at the file
PAIRS = 12


class ByTurns(Followers):
    """Loggers whose processes are halted every other second; `turn` is called after each step."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(names, Interrupt())
        self._began = perf_counter()
        self._turn = 0
        self.of_steps: list[int] = []
        """In which turn each step was; in the odd ones the loggers are halted."""

    def turn(self) -> None:
        self.of_steps.append(self._turn)
        if perf_counter() - self._began >= TURN:
            self._turn += 1
            self._signal(signal.SIGSTOP if self._turn % 2 else signal.SIGCONT)
            self._began = perf_counter()

    def close(self, summary: dict[str, Any]) -> None:
        self._signal(signal.SIGCONT)
        super().close(summary)

    def _signal(self, signum: signal.Signals) -> None:
        for group in self.process_groups:
            with suppress(ProcessLookupError):  # it failed, and was heard of
                os.killpg(group, signum)


def steps_needed(seconds: float) -> int:
    """For PAIRS of turns with steps of so many seconds."""
    return round(2 * PAIRS * TURN / seconds)


def ratios(turns: list[int], seconds: list[float]) -> list[float]:
    """Of the mean step of each turn with loggers to that of the turn after it."""
    by_turn = groupby(zip(turns, seconds, strict=True), key=lambda pair: pair[0])
    means = [statistics.fmean(took for _, took in steps) for _, steps in by_turn]
    return [on / off for on, off in zip(means[::2], means[1::2], strict=False)]
