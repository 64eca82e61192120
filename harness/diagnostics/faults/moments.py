"""Moments of a command: the n-th change of a file, or the n-th call of a function, in one of its
phases. A rehearsal counts them; later lives are killed at one."""

from __future__ import annotations

import functools
import importlib
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any, NamedTuple

from harness.diagnostics.faults import files

# The functions that make up a phase.
PHASES = {
    "encoding": ("harness.data.encoded:encode_parts", "harness.data.encoded:fit_tokenizer"),
    "first step": ("harness.training.trainer:Trainer.step",),
    "accumulation": ("harness.training.trainer:Trainer._backward",),
    "evaluation": ("harness.evaluation.score:score_split",),
    "sampling": ("harness.sampling.decode:sample_text", "harness.runs.samples:append"),
    "checkpoint": ("harness.runs.checkpoint:save", "harness.runs.checkpoint:keep_only"),
    "summary": ("harness.runs.summary:Summary.write",),
    "report": ("harness.report.html.document:write_report",),
}
ONCE = ("first step",)
WHOLE = "whole life"
Unit = str  # "files" or "calls"


class Moment(NamedTuple):
    """Before the `number`-th (from 1) change of a file or call of a function in a phase. torn: a
    write gets half-way first."""

    phase: str
    unit: Unit
    number: int
    torn: bool = False

    def __str__(self) -> str:
        what = "change of a file" if self.unit == "files" else "call"
        return f"{self.phase}, {what} {self.number}{', half written' if self.torn else ''}"


class CallCounter:
    """Counts the moments of this process, and kills it at one. For a fork.

    counts: how many of each unit each phase has had. moment: None for a rehearsal.
    """

    def __init__(self, moment: Moment | None = None) -> None:
        self.counts = Counter[tuple[str, Unit]]()
        self._moment, self._phases, self._dying = moment, [WHOLE], False

    def start(self) -> None:
        for phase, names in PHASES.items():
            for name in names:
                _replace(name, functools.partial(self._timed, phase))
        files.watch(self._change)

    def _change(self, call: str, size: int, descriptor: int) -> int:
        if self._dying or self._comes("files"):
            half = self._moment and self._moment.torn and call == "write" and size > 1
            if self._dying or not half:
                os.kill(os.getpid(), signal.SIGKILL)
            self._dying = True
            return size // 2
        return size

    def _called(self, frame: FrameType, event: str, argument: Any) -> None:
        if event in ("call", "c_call") and self._comes("calls"):
            os.kill(os.getpid(), signal.SIGKILL)

    def _comes(self, unit: Unit) -> bool:
        """Count, in each phase that is under way; whether this is the moment."""
        for phase in set(self._phases):
            self.counts[phase, unit] += 1
        moment = self._moment
        return moment is not None and (
            moment.unit == unit
            and moment.phase in self._phases
            and self.counts[moment.phase, unit] == moment.number
        )

    def _timed(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*arguments: Any, **named: Any) -> Any:
            if phase in ONCE and self.counts[phase, "calls"]:
                return function(*arguments, **named)
            self._phases.append(phase)
            before = sys.getprofile()
            # To count every call is slow: only where it is wanted.
            if self._moment is None or self._moment[:2] == (phase, "calls"):
                sys.setprofile(self._called)
            try:
                return function(*arguments, **named)
            finally:
                self._phases.pop()
                sys.setprofile(before)

        return timed


def _replace(name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Put a wrapper in the place of a function, wherever it was imported to."""
    where, _, path = name.partition(":")
    module = importlib.import_module(where)
    owner_name, _, attribute = path.rpartition(".")
    owner = getattr(module, owner_name) if owner_name else module
    plain = getattr(owner, attribute)
    wrapped = wrap(plain)
    setattr(owner, attribute, wrapped)
    for other in list(sys.modules.values()):
        if getattr(other, "__name__", "").startswith("harness"):
            for known, value in list(vars(other).items()):
                if value is plain:
                    setattr(other, known, wrapped)
