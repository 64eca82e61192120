"""Show how the optimizer treats each parameter: its rate, its decay, and who updates it.

python -m harness.groups model=gpt optimizer=muon
python -m harness.groups model=hf model.config.model_type=mamba tokenizer=char
"""

from __future__ import annotations

from omegaconf import DictConfig

from harness.cli.hydra_app import run_hydra
from harness.config.settings import read_settings


def task(cfg: DictConfig) -> int:
    """Print a table on stdout, a row for each group, and what is unmarked."""
    settings = read_settings(cfg)

    from harness.diagnostics.groups import print_groups

    return print_groups(settings)


def main() -> None:
    """The command."""
    run_hydra(task)


if __name__ == "__main__":
    main()
