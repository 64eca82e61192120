"""A sweep: checks before its first job, the report after its last."""

from __future__ import annotations

import atexit
import json
import shlex
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import OmegaConfBaseException

from harness.common.errors import RunFailure, UsageError
from harness.common.files import remove_leftovers, write_atomically
from harness.common.values import show
from harness.config import secrets
from harness.config.settings import (
    Settings,
    SweepSettings,
    read_settings,
    read_sweep,
    require_trusted,
)
from harness.config.together import joined
from harness.report.html.document import write_report
from harness.report.records.runs import find_runs
from harness.report.statistics.ranking import compare_runs
from harness.report.text.terminal import print_comparison
from harness.runs.fork import forked_settings, parent_of
from harness.training.checks import check_settings
from harness.training.devices import Devices, in_use, named_devices, use
from harness.training.distributed import ProcessGroup
from harness.training.run import load_dataset
from harness.training.sweep_jobs import CANDIDATES, count_finished, go_on, has_variants, plan_of


@dataclass
class Sweep:
    """A sweep in progress. jobs: the settings of each, or their error."""

    folder: Path
    jobs: list[Settings | UsageError]
    any_failed: bool = False

    def report(self) -> int:
        """Wait for jobs on several devices, print the table, write report.html; returns the exit
        code. Raises RunFailure."""
        if (on_devices := in_use()) is not None:
            on_devices.finish()
            use(None)
        if not any(self.folder.rglob("summary.json")):  # a sweep of harness.bench leaves no runs
            return int(self.any_failed)
        try:
            comparison = compare_runs(find_runs([self.folder]))
            # First: whoever reads the table may not read to its end (`… | head`).
            write_report(comparison, self.folder / "report.html", [self.folder])
        except Exception as error:
            folder, report = str(self.folder), f"{self.folder}/report.html"
            raise RunFailure(
                f"the report failed ({type(error).__name__}: {error}), and no run with it: try "
                f"{shlex.join(['python', '-m', 'harness.compare', folder, '--out', report])}"
            ) from error
        print(f"{self.folder}/report.html written", file=sys.stderr)
        with suppress(BrokenPipeError):
            print_comparison(comparison, sys.stdout)
        # The folder may hold runs of earlier jobs, too: only this sweep's configurations count.
        return int(count_finished(self.folder, self.jobs) < len(self.jobs))


def begin_sweep(master: DictConfig) -> Sweep:
    """Check the jobs and make the sweep's folder. Raises UsageError if no job can run."""
    processes = ProcessGroup.from_environment()
    if processes.world_size > 1:
        raise UsageError(f"a sweep runs in one process, not in {processes.world_size}")
    folder = _sweep_dir(master)
    # Hydra writes what the jobs share into multirun.yaml; overrides and jobs are checked elsewhere.
    plain: Any = OmegaConf.to_container(master, resolve=False)
    secrets.reject({key: value for key, value in plain.items() if key != "hydra"})
    named = any(line.startswith("hydra.sweep.dir=") for line in master.hydra.overrides.hydra)
    _require_usable(folder, master.get("resume"), named)
    own = _own_settings(master)
    sweep = Sweep(folder, _checked_jobs(_job_configs(master)))
    devices = _devices(master, own, sweep)
    for line in (_how(sweep, own, devices), plan_of(sweep.jobs)):
        if line:
            print(line, file=sys.stderr)
    made = _make_folder(folder)
    if has_variants(sweep.jobs):
        write_atomically(folder / CANDIDATES, b"")
    remove_leftovers(folder)  # of a report that was being written
    if finished := count_finished(folder, sweep.jobs):
        print(f"{finished} of {len(sweep.jobs)} jobs are finished", file=sys.stderr)
    atexit.register(_remove_if_empty, made)
    if devices:
        valid = sum(isinstance(job, Settings) for job in sweep.jobs)
        use(Devices(devices, valid - finished, go_on(folder)))
    return sweep


def _own_settings(master: DictConfig) -> SweepSettings:
    """Those of the sweep itself, which go to none of its jobs. What goes together is put where
    Hydra's sweeper finds what it combines."""
    own, overrides, typed = read_sweep(master), _overrides(master), _typed(master)
    its = [each for each in overrides if each.key_or_group.startswith("sweep.")]
    for each in its:
        if each.is_sweep_override():
            raise UsageError(f"{each.input_line} should be a list: {each.key_or_group}=[…,…]")
        if each.input_line not in typed:
            raise UsageError(
                f"hydra.sweeper.params.{each.key_or_group}: in a file it stands under `sweep:`"
            )
    if own.together or its:
        with read_write(master.hydra):
            master.hydra.sweeper.params = {}
            combined = [each for each in overrides if each not in its]
            master.hydra.overrides.task = joined(combined, own.together)
    return own


def _devices(master: DictConfig, own: SweepSettings, sweep: Sweep) -> list[str]:
    """Of the jobs at the same time; none if they are trained one after another, in this process."""
    if own.devices is None:
        return []
    if not master.hydra.launcher._target_.startswith("hydra._internal."):
        raise UsageError("sweep.devices and hydra/launcher both start the jobs: leave one out")
    asked = {job.device for job in sweep.jobs if isinstance(job, Settings)}
    if len(asked) > 1:
        raise UsageError(f"device={','.join(sorted(asked))} and sweep.devices: leave one out")
    return named_devices(own.devices, *asked)


def _how(sweep: Sweep, own: SweepSettings, devices: list[str]) -> str | None:
    """What the sweep's own settings do; None where there are none."""
    said = []
    if own.together:
        said.append(f"the values of {' and '.join(own.together)} go together")
    if devices:
        said.append(f"at the same time on {', '.join(devices)}")
    return f"{len(sweep.jobs)} jobs: {'; '.join(said)}" if said else None


def _sweep_dir(config: DictConfig) -> Path:
    try:
        folder = config.hydra.sweep.dir
    except OmegaConfBaseException as error:
        raise UsageError(f"hydra.sweep.dir: {error}") from error
    if not folder or not isinstance(folder, str):
        raise UsageError(f"hydra.sweep.dir={show(folder)} should name a folder")
    return Path(folder)


def _is_other(path: Path) -> bool:
    """Whether it is more than the word that a sweep's jobs are candidates, which may come first."""
    return path.name != CANDIDATES


def _require_usable(folder: Path, resume: object, named: bool) -> None:
    """Raises UsageError unless the folder is free (resume=false), holds a sweep (true), or one of
    both (auto). named: on the command line."""
    try:
        is_sweep, is_taken = (folder / "multirun.yaml").exists(), folder.exists()
        is_taken = is_taken and (not folder.is_dir() or any(map(_is_other, folder.iterdir())))
    except OSError as error:
        raise UsageError(f"hydra.sweep.dir={folder}: {error.strerror}") from error
    if resume == "auto" and not named:
        raise UsageError("resume=auto needs hydra.sweep.dir=…: the folder of the sweep")
    if resume == "auto" and is_taken and not is_sweep:
        raise UsageError(f"hydra.sweep.dir={folder} holds other files and no sweep")
    if resume is True and not is_sweep:
        raise UsageError(
            "resume=true needs hydra.sweep.dir=…: the folder of the sweep to go on with "
            f"({folder} is none)"
        )
    if is_taken and not resume:
        raise UsageError(f"hydra.sweep.dir={folder} exists already; go on with it by resume=true")


def _overrides(master: DictConfig) -> list[Override]:
    """What Hydra's sweeper combines."""
    loader = GlobalHydra.instance().config_loader()
    of_file = [f"{key}={value}" for key, value in (master.hydra.sweeper.params or {}).items()]
    parser = OverridesParser.create(config_loader=loader)
    found: list[Override] = parser.parse_overrides([*of_file, *_typed(master)])
    return found


def _typed(master: DictConfig) -> list[str]:
    """The overrides as typed: a value may be an interpolation, which only a job can resolve."""
    given: Any = OmegaConf.to_container(master.hydra.overrides.task, resolve=False)
    return list(given)


def _job_configs(master: DictConfig) -> list[DictConfig]:
    """The configuration of each job, as Hydra's sweeper will compose it."""
    loader, overrides = GlobalHydra.instance().config_loader(), _overrides(master)
    for override in overrides:
        if override.is_sweep_override() and not list(override.sweep_string_iterator()):
            raise UsageError(f"{override.input_line} selects nothing: the sweep has no jobs")
    (batch,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
    return [loader.load_sweep_config(master, job) for job in batch]


def _checked_jobs(configs: list[DictConfig]) -> list[Settings | UsageError]:
    """Each job's settings or its error. Raises the first error if no job can run."""
    checked: dict[str, UsageError | None] = {}
    jobs = [_check_job(config, checked) for config in configs]
    valid = [job for job in jobs if isinstance(job, Settings)]
    errors = {number: job for number, job in enumerate(jobs) if isinstance(job, UsageError)}
    if not valid:
        raise errors[0]
    for number, error in errors.items():
        print(f"job {number} will fail: {error}", file=sys.stderr)
    first_error: UsageError | None = None
    for settings in valid:
        try:
            if settings.resume is not True:
                load_dataset(settings)
            return jobs
        except UsageError as error:
            first_error = first_error or error
    assert first_error is not None
    raise first_error


def _check_job(config: DictConfig, checked: dict[str, UsageError | None]) -> Settings | UsageError:
    """checked: what was found before; jobs that differ in their seed alone are checked once."""
    hydra_config = HydraConfig.instance()
    before = hydra_config.cfg
    hydra_config.set_config(config)  # for ${hydra:…}
    try:
        typed: Any = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
        settings = forked_settings(read_settings(config), typed)
        parent_of(settings)
        if settings.run_dir:
            raise UsageError("run_dir names the folder of one run; for a sweep: hydra.sweep.dir=…")
        but_for_seed = json.dumps(settings.replace(seed=0).plain(), sort_keys=True)
        if but_for_seed not in checked:
            checked[but_for_seed] = None
            try:
                require_trusted(settings)
                check_settings(settings)
            except UsageError as error:
                checked[but_for_seed] = error
        if found := checked[but_for_seed]:
            return found
    except UsageError as error:
        return error
    finally:
        hydra_config.cfg = before
    return settings


def _make_folder(folder: Path) -> list[Path]:
    """Make the folder; returns it and its parents that did not exist, innermost first."""
    folder = folder.absolute()
    try:
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"hydra.sweep.dir={folder} can't be made: {error.strerror}") from error
    return missing


def _remove_if_empty(made: list[Path]) -> None:
    """Remove the folder of a sweep without runs, and the parents made for it."""
    left = {path.name for path in made[0].iterdir()} if made and made[0].is_dir() else None
    if left is not None and left <= {"multirun.yaml", CANDIDATES}:
        shutil.rmtree(made[0])
        with suppress(OSError):  # a parent that others use by now
            for parent in made[1:]:
                parent.rmdir()
