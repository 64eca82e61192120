"""Find useful learning rates by a range test.

python -m harness.lr_range model=gpt train.steps=200
python -m harness.lr_range model=gpt train.steps=200 --out lr_range.png     and a picture

Smith 2017, arXiv 1506.01186, section 3.3.

The rate rises from `optimizer.lr` / 10,000 to `optimizer.lr` · 1000 over the steps. The rates in
`optimizer.lr_of` rise by the same factor.
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from harness.cli.hydra_app import run_hydra, take_option
from harness.config.settings import read_settings


def task(cfg: DictConfig, out: str | None = None) -> int:
    """Print the smoothed loss over the rate, and the range in which it fell, on stdout."""
    settings = read_settings(cfg)

    from harness.diagnostics.lr_range import lr_range

    return lr_range(settings, Path(out) if out else None)


def main() -> None:
    """Run the command."""
    out = take_option("--out")
    run_hydra(lambda cfg: task(cfg, out))


if __name__ == "__main__":
    main()
