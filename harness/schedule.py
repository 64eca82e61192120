"""Draw the learning rate over the training budget.

python -m harness.schedule schedule=cosine optimizer.lr=1e-3
"""

from __future__ import annotations

from omegaconf import DictConfig

from harness.cli.hydra_app import run_hydra
from harness.config.settings import read_settings


def task(cfg: DictConfig) -> int:
    """Print the plot on stdout."""
    settings = read_settings(cfg)

    from harness.diagnostics.schedule import draw_schedule

    print(draw_schedule(settings))
    return 0


def main() -> None:
    """Run the command."""
    run_hydra(task)


if __name__ == "__main__":
    main()
