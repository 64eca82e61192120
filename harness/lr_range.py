"""Find out which learning rates work, by a range test.

python -m harness.lr_range model=gpt train.steps=200

Smith 2017, arXiv 1506.01186, section 3.3.

The rate rises from `optimizer.lr` / 10,000 to `optimizer.lr` · 1000 over the steps, and that of
each part in `optimizer.lr_of` as much.
"""

from __future__ import annotations

from omegaconf import DictConfig

from harness.cli.hydra_app import run_hydra
from harness.config.settings import read_settings


def task(cfg: DictConfig) -> int:
    """Print the smoothed loss over the rate, and the rates between which it fell, on stdout."""
    settings = read_settings(cfg)

    from harness.diagnostics.lr_range import lr_range

    return lr_range(settings)


def main() -> None:
    """The command."""
    run_hydra(task)


if __name__ == "__main__":
    main()
