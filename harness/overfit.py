"""Overfit one batch: if the loss does not approach zero, something is broken.

python -m harness.overfit model=gpt train.steps=200
python -m harness.overfit model=gpt train.steps=200 --out overfit.png     and a picture
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from harness.cli.hydra_app import run_hydra, take_option
from harness.config.settings import read_settings


def task(cfg: DictConfig, out: str | None = None) -> int:
    """Print the loss curve on stdout; 0 if the loss fell far enough, else 1."""
    settings = read_settings(cfg)

    from harness.diagnostics.overfit import overfit

    return overfit(settings, Path(out) if out else None)


def main() -> None:
    """Run the command."""
    out = take_option("--out")
    run_hydra(lambda cfg: task(cfg, out))


if __name__ == "__main__":
    main()
