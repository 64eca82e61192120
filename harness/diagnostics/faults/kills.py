"""Kills at every kind of moment: a command that is killed and given again ends as if left alone."""

from __future__ import annotations

import random
from pathlib import Path

from harness.diagnostics.faults.life import live
from harness.diagnostics.faults.moments import PHASES, WHOLE, CallCounter, Moment
from harness.diagnostics.faults.scenarios import Scenario, scenarios, verdict
from harness.diagnostics.faults.tries import Attempt, Options, Result

OF_A_SWEEP = ("encoding", "checkpoint", "summary", "report", WHOLE)  # else it is as in a run
TORN, AGAIN = 0.3, 0.25  # how often a write is torn, and the next life killed, too


def attempts(options: Options, folder: Path) -> dict[int, Attempt]:
    """The tries by their number: every phase of every scenario in its turn."""
    counted = scenarios(folder, options.settings)
    places = [
        (scenario, phase, unit)
        for scenario, counts in counted.items()
        for phase in (*PHASES, WHOLE)
        for unit in ("files", "calls")
        if scenario.name != "sweep" or phase in OF_A_SWEEP
        if counts[phase, unit] and (phase, unit) != (WHOLE, "calls")
    ]

    def attempt(number: int) -> Attempt:
        choice = random.Random(f"{options.seed} {number}")
        scenario, phase, unit = places[number % len(places)]
        counts = counted[scenario]
        torn = unit == "files" and choice.random() < TORN
        moments = [Moment(phase, unit, choice.randint(1, counts[phase, unit]), torn)]
        if choice.random() < AGAIN:
            moments.append(Moment(WHOLE, "files", choice.randint(1, counts[WHOLE, "files"])))
        return lambda folder: [killed(scenario, folder, moments)]

    return {number: attempt(number) for number in range(options.tries)}


def killed(scenario: Scenario, folder: Path, moments: list[Moment]) -> Result:
    """Kill the command at each moment, one life after another, then let it end."""
    scenario.prepare(folder)
    lives = []
    for moment in moments:
        lives.append(live(scenario.command(folder), CallCounter(moment).start))
        if not lives[-1].killed:
            break
    kills = sum(life.killed for life in lives)
    if lives[-1].killed:
        lives.append(live(scenario.command(folder)))
    what = "; then ".join(map(str, moments))
    return verdict(scenario, folder, lives, f"{scenario.name}: {moments[0].phase}", what, kills)
