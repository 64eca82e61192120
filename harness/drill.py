"""Kill a training again and again, and compare it with an uninterrupted one.

python -m harness.drill model=gpt --kills 20

Each process is ended by SIGKILL at a random moment: between two steps, within one, while it starts,
or while a checkpoint is half written. Compared are every logged row, the batches, the scores, the
samples and the last checkpoint, bit for bit.
"""

from __future__ import annotations

from harness.cli.tool import Parser, run_tool
from harness.common.errors import UsageError


def main() -> None:
    """The command."""
    run_tool(_drill)


def _drill() -> int:
    parser = Parser(
        prog="python -m harness.drill",
        description="Train once uninterrupted and once under kill -9, and compare, bit for bit.",
    )
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="as for harness.train")
    parser.add_argument("--kills", type=int, default=20, help="how many (20)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments to kill at (0)")
    arguments = parser.parse_intermixed_args()
    if arguments.kills < 1:
        raise UsageError(f"--kills {arguments.kills} must be at least 1")

    from harness.diagnostics.drill import drill

    return drill(arguments.settings, arguments.kills, arguments.seed)


if __name__ == "__main__":
    main()
