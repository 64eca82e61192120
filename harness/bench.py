"""Measure the speed and memory of one configuration.

python -m harness.bench model=gpt train.batch_size=12
python -m harness.bench --list                             the cost of every model of the zoo
python -m harness.bench --checkpoint model=gpt             only the cost of saving
python -m harness.bench --scaling scaling.csv model=gpt,lstm   as context and width grow
python -m harness.bench --against 'optimizer=muon' model=gpt   two configurations in alternation
python -m harness.bench --against HEAD~1 model=gpt         two revisions of the code

The overhead of the harness is a ratio of times: a step of the training loop over a bare step
(forward, backward, optimizer) right after it, so that drift of the machine's speed cancels. The
overhead of observe=… likewise: an observed step over the unobserved one after it, spread over the
steps between two observations.
"""

from __future__ import annotations

import sys

from omegaconf import DictConfig

from harness.cli.hydra_app import run_hydra
from harness.cli.tool import run_tool
from harness.config.settings import read_settings


def task(cfg: DictConfig) -> int:
    """Print a table on stdout."""
    settings = read_settings(cfg)

    from harness.diagnostics.bench import bench

    return bench(settings)


def main() -> None:
    """Run the command."""
    options = {word.partition("=")[0] for word in sys.argv[1:]}
    if "--against" in options:
        from harness.diagnostics.against import against

        run_tool(against)
    if "--scaling" in options:
        from harness.diagnostics.scaling import scaling

        run_tool(scaling)
    if options & {"--list", "--checkpoint"}:
        from harness.diagnostics.bench import checkpoint_cost, list_zoo

        run_tool(list_zoo if "--list" in options else checkpoint_cost)
    run_hydra(task)


if __name__ == "__main__":
    main()
