"""One side of `harness.bench --against`: trains, and waits for a line before each turn of a few
steps. It is run by its path, with the code of any revision that has what it imports."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from harness.cli.hydra_app import compose
from harness.cli.tool import run_tool
from harness.config.settings import read_settings
from harness.diagnostics.bench import timed_loop
from harness.diagnostics.probe import checked_compute
from harness.training.run import load_dataset

TURN = 5  # steps
TURNS = 40
WARM_UP = 2  # turns that don't count


def serve(words: Sequence[str]) -> int:
    """Print `null` after each turn, and {"seconds": of each turn that counts, "peak_memory":
    bytes} after the last."""
    settings = read_settings(compose(list(words)))
    dataset, compute = load_dataset(settings), checked_compute(settings)
    steps = 0

    def between() -> None:
        nonlocal steps
        steps += 1
        if steps % TURN == 0 and steps < total:
            print("null", flush=True)
            if not sys.stdin.readline():
                sys.exit(1)  # the other side failed, or the measurement was stopped

    total = TURN * (1 + WARM_UP + TURNS)  # the first turn has the start
    peak_memory, seconds = timed_loop(settings, dataset, compute, between, total)
    counted = seconds[-(TURN * TURNS) :]
    turns = [sum(counted[at : at + TURN]) for at in range(0, len(counted), TURN)]
    print(json.dumps({"seconds": turns, "peak_memory": peak_memory}), flush=True)
    return 0


if __name__ == "__main__":
    run_tool(lambda: serve(sys.argv[1:]))
