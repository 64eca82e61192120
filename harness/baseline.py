"""Put new models in the comparison: search, seeds, certificates, report, in one command.

    python -m harness.baseline my_net                            against those of experiment=compare
    python -m harness.baseline my_net --against gpt,mlp --plan   what it takes, and stop
    python -m harness.baseline my_net train.steps=3000 data=text data.path=FILE --seeds 5

Every model gets the same search (harness.search) at the same budget, then the same seeds. Models
that count are the floor. The plan, with its time, is printed first, then each training with the
time that is left. The same command goes on after it was stopped or killed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cli.tool import Parser, command
from harness.common.errors import UsageError


@command
def main() -> int:
    """Do it all; 0 if every training finished and every certificate passed."""
    parser = Parser(
        prog="python -m harness.baseline",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "words", nargs="+", metavar="MODEL… KEY=VALUE…", help="new models, by their files in "
        "conf/model, and settings of all trainings, as for harness.train",
    )  # fmt: skip
    parser.add_argument(
        "--against", metavar="NAME,NAME,…", help="models (those of experiment=compare)"
    )
    parser.add_argument("--folder", type=Path, help="of all trainings (runs/baseline-MODEL)")
    parser.add_argument("--seeds", type=int, default=3, help="of what was chosen (3)")
    parser.add_workers()
    parser.add_argument(
        "--complete", action="store_true", help="score every test token again, instead of a sample"
    )
    parser.add_argument("--plan", action="store_true", help="say what it takes, and stop")
    options = parser.parse_intermixed_args()
    if options.seeds < 1:
        raise UsageError(f"--seeds {options.seeds} must be at least 1")
    new = [word for word in options.words if "=" not in word]
    if not new:
        raise UsageError("name the new model: python -m harness.baseline my_net")

    from harness.tuning.baseline import baseline

    return baseline(
        new,
        options.against.split(",") if options.against is not None else None,
        [word for word in options.words if "=" in word],
        options.folder or Path("runs") / f"baseline-{'-'.join(new)}",
        seeds=options.seeds,
        workers=options.workers,
        complete=options.complete,
        only_plan=options.plan,
    )


if __name__ == "__main__":
    main()
