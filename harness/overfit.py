"""Overfit one batch: if the loss does not approach zero, something is broken.

python -m harness.overfit model=gpt train.steps=200
"""

from __future__ import annotations

from omegaconf import DictConfig

from harness.cli.hydra_app import run_hydra
from harness.config.settings import read_settings


def task(cfg: DictConfig) -> int:
    """Print the loss curve on stdout; 0 if the loss fell far enough, else 1."""
    settings = read_settings(cfg)

    from harness.diagnostics.overfit import overfit

    return overfit(settings)


def main() -> None:
    """Run the command."""
    run_hydra(task)


if __name__ == "__main__":
    main()
