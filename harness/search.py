"""Search rate, initialization and decay, with the same budget for each model.

python -m harness.search model=mlp,gpt train.steps=1000 --folder runs/search --seeds 5

The plan is printed first: trainings, FLOPs, hours. Validation chooses. The same command goes on
after it was stopped or killed. FOLDER/chosen.yaml holds the chosen settings, for conf/experiment.
"""

from __future__ import annotations

from pathlib import Path

from harness.cli.tool import Parser, command
from harness.common.errors import UsageError


@command
def main() -> int:
    """Run the search; 0 if every training of it finished."""
    parser = Parser(
        prog="python -m harness.search",
        description="Search rate, initialization and decay, with the same budget for each model.",
    )
    parser.add_argument(
        "settings",
        nargs="+",
        metavar="KEY=VALUE",
        help="model=NAME,NAME,…, and settings of all trainings, as for harness.train",
    )
    parser.add_argument("--folder", type=Path, required=True, help="where the trainings go")
    parser.add_argument("--seeds", type=int, default=0, help="then train what was chosen (0)")
    parser.add_workers()
    options = parser.parse_intermixed_args()
    if options.seeds < 0:
        raise UsageError(f"--seeds {options.seeds} must be at least 0")
    named = [word.partition("=")[2] for word in options.settings if word.startswith("model=")]
    models = [name for name in ",".join(named).split(",") if name]
    if not models or len(set(models)) < len(models):
        raise UsageError("name the models, each once: model=mlp,gpt")
    shared = [word for word in options.settings if not word.startswith("model=")]

    from harness.tuning.search import search

    return search(models, shared, options.folder, options.seeds, options.workers)


if __name__ == "__main__":
    main()
