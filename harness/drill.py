"""Kill and resume a training many times; its results must be bit-identical.

python -m harness.drill model=gpt --kills 20

Each attempt is a process of its own. SIGKILL ends it at a random moment: during startup, within a
step, between two steps, or in the middle of writing a checkpoint. Compared are the trace (what was
logged at each step, and the batch it used), the scores, the samples and the last checkpoint.
"""

from __future__ import annotations

from harness.cli.tool import Parser, command
from harness.common.errors import UsageError


@command
def main() -> int:
    """Run the drill; 0 if both trainings agree, else 1."""
    parser = Parser(
        prog="python -m harness.drill",
        description="Train once without and once with kill -9, and compare the two bit for bit.",
    )
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="as for harness.train")
    parser.add_argument("--kills", type=int, default=20, help="number of kills (20)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the kill times (0)")
    arguments = parser.parse_intermixed_args()
    if arguments.kills < 1:
        raise UsageError(f"--kills {arguments.kills} must be at least 1")

    from harness.diagnostics.drill import drill

    return drill(arguments.settings, arguments.kills, arguments.seed)


if __name__ == "__main__":
    main()
