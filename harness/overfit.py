"""Train on one batch until it is learnt by heart: if it is not, something is broken.

python -m harness.overfit model=gpt train.steps=200
"""

from __future__ import annotations

from omegaconf import DictConfig

from harness.cli.hydra_app import run_hydra
from harness.config.settings import read_settings


def task(cfg: DictConfig) -> int:
    """Print the curve on stdout; 0 if the loss came down, else 1."""
    settings = read_settings(cfg)

    from harness.diagnostics.overfit import overfit

    return overfit(settings)


def main() -> None:
    """The command."""
    run_hydra(task)


if __name__ == "__main__":
    main()
