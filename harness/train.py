"""Train one model, or a sweep of many.

    python -m harness.train model=gpt tokenizer=char            one run
    python -m harness.train -m model=bigram,gpt seed=0,1,2      a sweep
    python -m harness.train experiment=compare                  a recipe
    python -m harness.train run_dir=RUN resume=true             continue a stopped run
    python -m harness.train run_dir=RUN resume=auto …           begin it or continue it

A mistake in a setting is reported in one line, before anything is made.
"""

from __future__ import annotations

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from harness.cli.hydra_app import run_hydra, typed_overrides
from harness.config.settings import read_settings, require_trusted


def task(cfg: DictConfig) -> int:
    """Train what one composed configuration describes; returns the exit code."""
    overrides = typed_overrides()
    hydra_config = HydraConfig.get()
    if hydra_config.mode == RunMode.MULTIRUN:
        from harness.training.sweep_jobs import run_job

        return run_job(cfg, Path(hydra_config.sweep.dir), int(hydra_config.job.num), overrides)
    settings = read_settings(cfg)
    require_trusted(settings)

    from harness.runs.fork import forked_settings
    from harness.runs.resume import resumed_settings
    from harness.training.run import run

    return run(resumed_settings(forked_settings(settings, overrides), overrides))


def main() -> None:
    """Run the command."""
    run_hydra(task, trains=True)


if __name__ == "__main__":
    main()
