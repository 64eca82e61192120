"""Create a W&B workspace that compares architectures.

python -m harness.dashboard                          all runs of the project
python -m harness.dashboard runs/2026-11-20/SWEEP    the runs of a sweep: its folder, or its name
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from harness.cli.tool import Parser, command
from harness.common.errors import UsageError
from harness.loggers.wandb import PROJECT, default_project


@command
def main() -> int:
    """Save the page and print its address."""
    parser = Parser(
        prog="python -m harness.dashboard",
        description="Create a W&B workspace that compares architectures.",
    )
    parser.add_argument("sweep", nargs="?", type=Path, help="a sweep's folder, or a W&B group")
    parser.add_argument("--project", help=f"the W&B project ($WANDB_PROJECT, or {PROJECT})")
    parser.add_argument("--entity", default=None, help="the owner of the project (you)")
    options = parser.parse_args()
    if find_spec("wandb_workspaces") is None:
        raise UsageError(
            "needs the package wandb-workspaces: pip install 'language-model-zoo[dashboard]'"
        )
    from harness.report import workspace

    try:
        project = options.project or default_project()
    except ValueError as error:
        raise UsageError(f"WANDB_PROJECT: {error}") from error
    group = options.sweep and options.sweep.absolute().name
    print(workspace.save(options.entity, project, group))
    return 0


if __name__ == "__main__":
    main()
