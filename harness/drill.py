"""Kill a training again and again, and compare it with an uninterrupted one.

python -m harness.drill model=gpt --kills 20

Each process is ended by SIGKILL at a random moment: between two steps, within one, while it starts,
or while a checkpoint is half written. Compared are every logged row, the batches, the scores, the
samples and the last checkpoint, bit for bit.
"""

from __future__ import annotations

from harness.cli.tool import Parser, command
from harness.common.errors import UsageError


@command
def main() -> int:
    """Run the drill; 0 if both trainings agree, else 1."""
    parser = Parser(
        prog="python -m harness.drill",
        description="Train once uninterrupted and once under kill -9, and compare, bit for bit.",
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
