"""Measure the speed and memory of one configuration.

python -m harness.bench model=gpt train.batch_size=12
python -m harness.bench --list                             what every model of the zoo costs
python -m harness.bench --checkpoint model=gpt             what saving costs, and nothing else

The harness's own cost is a ratio: each step of the real loop over a bare step (forward, backward,
optimizer) right after it, so that a machine whose speed drifts does not decide it. What watching
costs (observe=…) likewise: an observed step over the unobserved one after it, spread over as many
steps as lie between two looks.
"""

from __future__ import annotations

import sys

from omegaconf import DictConfig

from harness.cli.hydra_app import run_hydra
from harness.cli.tool import run_tool
from harness.config.settings import read_settings


def task(cfg: DictConfig) -> int:
    """Measure, and print a table on stdout."""
    settings = read_settings(cfg)

    from harness.diagnostics.bench import bench

    return bench(settings)


def main() -> None:
    """The command."""
    if "--list" in sys.argv or "--checkpoint" in sys.argv:
        from harness.diagnostics.bench import checkpoint_cost, list_zoo

        run_tool(list_zoo if "--list" in sys.argv else checkpoint_cost)
    run_hydra(task)


if __name__ == "__main__":
    main()
