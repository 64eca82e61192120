"""Show the learning rate, weight decay and update rule of each parameter.

python -m harness.groups model=gpt optimizer=muon
python -m harness.groups model=hf model.config.model_type=mamba tokenizer=char
"""

from __future__ import annotations

from omegaconf import DictConfig

from harness.cli.hydra_app import run_hydra
from harness.config.settings import read_settings


def task(cfg: DictConfig) -> int:
    """Print a row per parameter group on stdout, and the parameters without a role."""
    settings = read_settings(cfg)

    from harness.diagnostics.groups import print_groups

    return print_groups(settings)


def main() -> None:
    """Run the command."""
    run_hydra(task)


if __name__ == "__main__":
    main()
