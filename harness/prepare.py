"""Encode a corpus and describe how the tokenizer splits it.

Optional: training encodes what it needs.

python -m harness.prepare data=tiny_shakespeare tokenizer=p50k
"""

from __future__ import annotations

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from harness.cli.hydra_app import run_hydra
from harness.common.errors import UsageError
from harness.config.settings import read_settings


def task(cfg: DictConfig) -> int:
    """Print the report on stdout."""
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        raise UsageError("harness.prepare takes one corpus and one tokenizer: leave out -m")
    settings = read_settings(cfg)

    from harness.data.describe import describe_data

    print(describe_data(settings))
    return 0


def main() -> None:
    """Run the command."""
    run_hydra(task)


if __name__ == "__main__":
    main()
