"""Try what a bad day does to a training.

python -m harness.drill model=gpt --kills 20   one training, killed at random times
python -m harness.drill kills                  every phase, killed at every kind of moment
python -m harness.drill disks                  disks of every size run full
python -m harness.drill flips                  bits are flipped in every kind of file
python -m harness.drill fuzz --minutes 30      nonsense is put into every file that is read
python -m harness.drill folders                runs as an attacker would send them
python -m harness.drill requests               the live page under slow clients and many runs

The first trains once uninterrupted and once killed by SIGKILL again and again: between two steps,
within one, while it starts, or while a checkpoint is half written. It compares every logged row,
the batches, the scores, the samples and the checkpoints, bit for bit. The others try small
trainings hundreds of times, and print a table of how each ended; the last, one of answer times.
"""

from __future__ import annotations

import argparse
import os
from importlib.util import find_spec

from harness.cli.tool import Parser, command
from harness.common.errors import UsageError

TRIES = {"kills": 300, "disks": 100, "flips": 300, "fuzz": 0, "folders": 0, "requests": 30}
ALONE = ("fuzz", "requests")  # they take no settings of a training
READERS_MINUTES = 8.0  # about half a minute for each


@command
def main() -> int:
    """Run the drill; 0 if nothing was lost, else 1."""
    parser = Parser(
        prog="python -m harness.drill",
        description="Disturb trainings: nothing may be lost, and nothing pass in silence.",
    )
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="KEY=VALUE",
        help="as for harness.train; after kills, disks, flips or folders: of the small trainings",
    )
    parser.add_argument("--kills", type=int, default=20, help="kills of one training (20)")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn at random (0)")
    several = parser.add_argument_group(f"{', '.join(TRIES)}")
    counts = ", ".join(f"{count} {name}" for name, count in TRIES.items() if count)
    several.add_argument("--tries", type=int, help=f"number of tries ({counts}, all folders)")
    several.add_argument("--only", type=int, help="the number of one try, to see it again")
    several.add_argument("--minutes", type=float, default=READERS_MINUTES, help="of fuzz (8)")
    several.add_argument("--jobs", type=int, help="tries at a time (the number of processors)")
    several.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    arguments = parser.parse_intermixed_args()
    for name in ("kills", "tries", "jobs"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name} {value} must be at least 1")
    if not 0 < arguments.minutes < 10**6:
        raise UsageError(f"--minutes {arguments.minutes} must be above 0")
    if not (arguments.settings and arguments.settings[0] in TRIES):
        from harness.diagnostics.drill import drill

        return drill(arguments.settings, arguments.kills, arguments.seed)
    return _many(arguments)


def _many(arguments: argparse.Namespace) -> int:
    kind, *settings = arguments.settings
    if kind == "fuzz" and find_spec("hypothesis") is None:
        raise UsageError("needs the package hypothesis: pip install 'language-model-zoo[fuzz]'")
    if kind in ALONE and settings:
        raise UsageError(f"{kind} takes no settings of a training")
    tries = arguments.tries or TRIES[kind]
    if kind == "requests":
        from harness.diagnostics.faults.page_load import run_requests

        return run_requests(tries)
    from harness.diagnostics.faults import disks, flips, folders, kills
    from harness.diagnostics.faults.tries import Options, run_drill

    makers = {
        "kills": kills.attempts, "disks": disks.attempts, "flips": flips.attempts,
        "folders": folders.attempts,
    }  # fmt: skip
    if kind == "fuzz":
        from harness.diagnostics.faults import fuzz

        makers["fuzz"] = fuzz.attempts
    options = Options(tries, arguments.seed, tuple(settings), arguments.minutes)
    jobs = arguments.jobs or len(os.sched_getaffinity(0))
    return run_drill(makers[kind], options, jobs, arguments.only, arguments.json)


if __name__ == "__main__":
    main()
