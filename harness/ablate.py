"""What each change of a model does: added alone, and left out of all.

    python -m harness.ablate 'model=gpt train.steps=500' model.norm=rms_norm model.bias=false \\
        'model.activation=swiglu' --folder runs/ablation --seeds 3

BASE is a model's name, or settings in quotes; each CHANGE is one setting, or several in quotes.
The plan is printed first: trainings, FLOPs, hours. The same command goes on after it was stopped
or killed. Validation alone is read. FOLDER/report.html holds the effects.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cli.tool import Parser, command
from harness.common.errors import UsageError


@command
def main() -> int:
    """Run the ablation; 0 if every training of it has a score."""
    parser = Parser(
        prog="python -m harness.ablate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("base", metavar="BASE", help="a model's name, or settings in quotes")
    parser.add_argument(
        "changes", nargs="+", metavar="CHANGE", help="a setting, or several in quotes"
    )
    parser.add_argument("--folder", type=Path, required=True, help="where the trainings go")
    parser.add_argument("--seeds", type=int, default=3, help="of each variant (3)")
    parser.add_workers()
    parser.add_argument(
        "--search",
        action="store_true",
        help="search rate, initialization and decay of each variant first, as harness.search does",
    )
    options = parser.parse_intermixed_args()
    if options.seeds < 1:
        raise UsageError(f"--seeds {options.seeds} must be at least 1")

    from harness.tuning.ablation import ablate, plan_ablation

    plan = plan_ablation(options.base, options.changes)
    return ablate(plan, options.folder, options.seeds, options.workers, options.search)


if __name__ == "__main__":
    main()
