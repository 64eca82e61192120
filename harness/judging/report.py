"""A verdict as a table or as JSON."""

from __future__ import annotations

import statistics
import sys
from typing import Any

from rich.table import Table

from harness.common.console import Console
from harness.common.rows import strict_json
from harness.common.text import visible_line
from harness.judging.evidence import BETTER, SAME, WORSE
from harness.judging.final import read_test
from harness.judging.judgement import Judge, Judged, StoppedBySignal
from harness.judging.ledger import Reading
from harness.judging.online import ALPHA
from harness.judging.sides import SIDES
from harness.report.text.format import human

EXIT_CODES = {BETTER: 0, WORSE: 3, SAME: 4, None: 5}
COSTS = ("parameters", "steps", "tokens", "flops", "seconds")


def report(judge: Judge, *, only_plan: bool, final: bool, as_json: bool) -> int:
    """Judge, or read test, and print what came of it; returns the exit code."""
    if final:
        reading, count = read_test(judge), len(judge.ledger.read().tries)
        print(_json(reading.model_dump()) if as_json else _test_line(reading, judge, count))
        return 0
    for line in judge.plan():
        print(visible_line(line), file=sys.stdout if only_plan else sys.stderr)
    if only_plan:
        return 0
    try:
        judged = judge.judge()
    except StoppedBySignal as stopped:
        return stopped.code
    if as_json:
        print(_json(plain(judged)))
    else:
        _print_table(judge, judged)
    return EXIT_CODES[judged.outcome.verdict]


def plain(judged: Judged) -> dict[str, Any]:
    """All of a verdict as plain values."""
    trial, outcome = judged.trial, judged.outcome
    return {
        "verdict": outcome.verdict,
        "try": trial.number,
        "level": trial.level,
        "margin": trial.margin,
        "pairs": outcome.pairs,
        "difference": {"mean": outcome.mean, "low": outcome.low, "high": outcome.high},
        "val_bits_per_byte": judged.scores,
        "costs": judged.costs,
        "candidate": trial.candidate,
        "baseline": trial.baseline,
        "git": trial.git,
        "receipt": judged.receipt,
    }


def sentence(judged: Judged) -> str:
    """The answer, and what it rests on."""
    outcome, margin = judged.outcome, judged.trial.margin
    words = {
        BETTER: "the candidate is better",
        WORSE: "the candidate is worse",
        SAME: f"no difference larger than {margin:g}",
        None: f"not settled by {outcome.pairs} pairs of trainings; more by --seeds",
    }[outcome.verdict]
    if outcome.low is None or outcome.high is None:
        return f"{words}: {outcome.mean:+.4f} validation bits per byte, and no interval yet"
    return (
        f"{words}: {outcome.mean:+.4f} validation bits per byte, between {outcome.low:+.4f} and "
        f"{outcome.high:+.4f} (level {judged.trial.level:.3g}, {outcome.pairs} pairs)"
    )


def _print_table(judge: Judge, judged: Judged) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("")
    # Where there are experts, of which a token goes through some.
    experts = any(cost["active"] != cost["parameters"] for cost in judged.costs.values())
    shown_costs = (COSTS[0], *(["active"] if experts else []), *COSTS[1:])
    for header in ("bits per byte", "over seeds", *shown_costs):
        table.add_column(header, justify="right")
    for name in SIDES:
        scores, cost = judged.scores[name], judged.costs[name]
        spread = f"± {statistics.stdev(scores):.4f}" if len(scores) > 1 else "–"
        costs = [cost[each] for each in shown_costs]
        shown = ["–" if value is None else human(value) for value in costs]
        table.add_row(name, f"{statistics.fmean(scores):.4f}", spread, *shown)
    print(visible_line(sentence(judged)))
    width = None if sys.stdout.isatty() else 120
    Console(file=sys.stdout, highlight=False, width=width).print(table)
    for name, side in zip(SIDES, judge.sides, strict=True):
        print(visible_line(f"{name}: {side.text}"))
    entries = judge.ledger.read()
    print(
        f"try {judged.trial.number} of {len(entries.tries)} in {judge.ledger.path}: of all that "
        f"are found better there, at most {ALPHA:.0%} are expected to be by luck; receipt "
        f"{judged.receipt[:16]}"
    )


def _test_line(reading: Reading, judge: Judge, tries: int) -> str:
    assert reading.candidate is not None
    assert reading.baseline is not None
    readings = {each.number for each in judge.ledger.read().readings()}
    return (
        f"test of try {reading.number}: candidate {reading.candidate:.4f}, baseline "
        f"{reading.baseline:.4f} bits per byte, {reading.candidate - reading.baseline:+.4f}; "
        f"test was read for {len(readings)} of {tries} tries"
    )


def _json(values: dict[str, Any]) -> str:
    return strict_json(values, indent=2)
