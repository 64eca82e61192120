"""Test, read once for a try that has been judged, and entered in the ledger before it is read."""

from __future__ import annotations

import statistics

from harness.common.errors import UsageError
from harness.judging.certified import certified_score
from harness.judging.judgement import Judge
from harness.judging.ledger import Reading, Try
from harness.judging.sides import SIDES
from harness.runs.test_reads import log_test_read


def read_test(judge: Judge) -> Reading:
    """The mean test bits per byte of each side. Raises UsageError if the try has not been judged,
    and if test was read for it."""
    trial = judge.standing()
    if trial is None or judge.ledger.read().outcome(trial.number) is None:
        raise UsageError("not judged yet: first the same command without --final")
    _enter(judge, trial)
    outcome = judge.ledger.read().outcome(trial.number)
    assert outcome is not None, "it was there a moment ago"
    means = {}
    for name, side in zip(SIDES, judge.sides, strict=True):
        scores = []
        for pair in range(1, outcome.pairs + 1):
            folder = judge.folder(trial, name, pair)
            log_test_read(folder, "harness.judge --final")
            scores.append(certified_score(folder, side, "test"))
        means[name] = statistics.fmean(scores)
    entry = judge.ledger.append("test", number=trial.number, **means)
    assert isinstance(entry, Reading)
    return entry


def _enter(judge: Judge, trial: Try) -> None:
    """Log that test is read. A reading that was cut off goes on."""
    with judge.ledger.adding() as (entries, add):
        before = entries.readings(trial.number)
        if any(each.candidate is not None for each in before):
            last = before[-1]
            raise UsageError(
                f"test was read for try {trial.number} at {last.time}, and is read once: candidate "
                f"{last.candidate:.4f}, baseline {last.baseline:.4f} bits per byte"
            )
        if not before:
            add("test", number=trial.number)
