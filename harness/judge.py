"""Judge a candidate against a baseline: better, worse, or no difference.

    python -m harness.judge gpt_modern gpt train.steps=500
    python -m harness.judge 'model=gpt init=xavier' gpt train.tokens=1000000 --seeds 30
    python -m harness.judge mine.X gpt train.steps=500 --trust mine --ledger ~/ledger
    python -m harness.judge gpt_modern gpt train.steps=500 --final

Trains both, seed after seed, until the answer is settled. The ledger counts every try. Validation
alone is read; --final reads test, once, after the verdict.

Exit codes: 0 better, 3 worse, 4 no difference larger than the margin, 5 not settled; 1 failed, or
not certified; 2 wrong usage.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from harness.cli.tool import Parser, command
from harness.common.errors import UsageError
from harness.judging.sides import read_sides


@command
def main() -> int:
    """Print the verdict; returns its exit code."""
    parser = Parser(
        prog="python -m harness.judge",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    side = "a file of conf/model, a class (mine.X), or settings in quotes: 'model=gpt init=xavier'"
    parser.add_argument("candidate", metavar="CANDIDATE", help=side)
    parser.add_argument("baseline", metavar="BASELINE", help="likewise")
    parser.add_argument(
        "settings", nargs="*", metavar="KEY=VALUE", help="of both sides, the budget among them"
    )
    parser.add_argument("--margin", type=float, default=0.01, help="bits per byte (0.01)")
    parser.add_argument("--seeds", type=int, default=20, help="of each side, at most (20)")
    parser.add_argument(
        "--ledger", type=Path, default=Path("runs/judge"), metavar="FOLDER",
        help="of the ledger and all trainings (runs/judge)",
    )  # fmt: skip
    parser.add_argument("--trust", action="append", default=[], help="a package of your own")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--plan", action="store_true", help="say what it may take, and stop")
    which.add_argument("--final", action="store_true", help="read test, once, after the verdict")
    options = parser.parse_intermixed_args()
    if not (options.margin > 0 and math.isfinite(options.margin)):
        raise UsageError(f"--margin {options.margin} must be above 0")
    if not 2 <= options.seeds < 2**31:
        raise UsageError(f"--seeds {options.seeds} must be at least 2")
    sides = read_sides(options.candidate, options.baseline, options.settings, options.trust)

    from harness.judging.judgement import Judge
    from harness.judging.ledger import Ledger
    from harness.judging.report import report

    judge = Judge(sides, Ledger(options.ledger), options.margin, options.seeds)
    return report(judge, only_plan=options.plan, final=options.final, as_json=options.json)


if __name__ == "__main__":
    main()
