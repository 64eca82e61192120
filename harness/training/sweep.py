"""A sweep: before its first job, after its last, and where each of its jobs lies."""

from __future__ import annotations

import atexit
import logging
import shutil
import sys
from collections.abc import Container, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.common.errors import UsageError
from harness.common.interrupt import INTERRUPTED, TERMINATED
from harness.common.values import show
from harness.config import secrets
from harness.config.settings import Settings, read_settings, require_trusted
from harness.report.html.document import write_report
from harness.report.records.runs import find_runs
from harness.report.text.terminal import print_comparison
from harness.runs.digest import digest, digest_of_run
from harness.runs.folder import RunFolder
from harness.runs.summary import Summary, status_of
from harness.training.checks import check_settings
from harness.training.distributed import World
from harness.training.run import load_dataset, record_failure, run

LOG = logging.getLogger("harness")


@dataclass
class Sweep:
    """A sweep under way. jobs: the settings of each, or what is wrong with them."""

    folder: Path
    jobs: list[Settings | UsageError]
    any_failed: bool = False

    def report(self) -> int:
        """Print the table, write report.html; returns the exit code."""
        if not any(self.folder.rglob("summary.json")):  # a sweep of harness.bench leaves no runs
            return int(self.any_failed)
        records = find_runs([self.folder])
        print_comparison(records, sys.stdout)
        write_report(records, self.folder / "report.html", [self.folder])
        print(f"{self.folder}/report.html written", file=sys.stderr)
        # By configuration, as the table may show runs of other jobs, made before in this folder.
        return int(_count(self.jobs, _digests(self.folder)) < len(self.jobs))


def begin_sweep(master: DictConfig) -> Sweep:
    """Make the sweep's folder. Raises UsageError for a sweep of which no job can run."""
    World.of_environment().require_alone()
    folder = _folder(master)
    _require_no_secret(master)
    _require_folder(folder, master.get("resume") is True)
    sweep = Sweep(folder, _require_any_sound(_jobs(master)))
    made = _make(folder)
    if finished := _count(sweep.jobs, _digests(folder)):
        print(f"{finished} of {len(sweep.jobs)} jobs are finished", file=sys.stderr)
    atexit.register(_remove_if_empty, made)
    return sweep


def job_folder(sweep: Path, name: str, settings: Settings) -> Path:
    """Where a job of a sweep that goes on lies: where a run of its configuration is already,
    whatever its number was then, a finished one first; else in a folder of its own."""
    wanted, own = digest(settings), sweep / name
    same = [path for path in (own, *_runs(sweep)) if digest_of_run(path) == wanted]
    if same:
        return next(filter(_is_finished, same), same[0])
    return sweep / f"{name}-{wanted[:6]}" if own.exists() else own


def _runs(sweep: Path) -> list[Path]:
    return sorted(path.parent for path in sweep.glob("[!.]*/config.yaml"))


def _digests(sweep: Path) -> set[str | None]:
    """Of the configurations that are finished."""
    return {digest_of_run(path) for path in _runs(sweep) if _is_finished(path)}


def _is_finished(folder: Path) -> bool:
    return status_of(folder) == "finished"


def _count(jobs: Iterable[Settings | UsageError], digests: Container[str | None]) -> int:
    """How many of the jobs have one of these digests."""
    sound = (job for job in jobs if not isinstance(job, UsageError))
    return sum(digest(job) in digests for job in sound)


def _folder(config: DictConfig) -> Path:
    try:
        folder = config.hydra.sweep.dir
    except OmegaConfBaseException as error:
        raise UsageError(f"hydra.sweep.dir: {error}") from error
    if not folder or not isinstance(folder, str):
        raise UsageError(f"hydra.sweep.dir={show(folder)} should name a folder")
    return Path(folder)


def _require_no_secret(master: DictConfig) -> None:
    """What the jobs have in common, which Hydra writes into multirun.yaml: each job's own settings
    and all that was typed are looked at elsewhere."""
    plain: Any = OmegaConf.to_container(master, resolve=False)
    secrets.reject({key: value for key, value in plain.items() if key != "hydra"})


def _require_folder(folder: Path, resume: bool) -> None:
    try:
        is_sweep, is_taken = (folder / "multirun.yaml").exists(), folder.exists()
        is_taken = is_taken and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        raise UsageError(f"hydra.sweep.dir={folder}: {error.strerror}") from error
    if resume and not is_sweep:
        raise UsageError(
            "resume=true needs hydra.sweep.dir=…: the folder of the sweep to go on with "
            f"({folder} is none)"
        )
    if is_taken and not resume:
        raise UsageError(f"hydra.sweep.dir={folder} exists already; go on with it by resume=true")


def _jobs(master: DictConfig) -> list[DictConfig]:
    """The configuration of each job that Hydra's sweeper is about to run."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser

    loader = GlobalHydra.instance().config_loader()
    typed = [f"{key}={value}" for key, value in (master.hydra.sweeper.params or {}).items()]
    typed += master.hydra.overrides.task
    overrides = OverridesParser.create(config_loader=loader).parse_overrides(typed)
    (batch,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
    return [loader.load_sweep_config(master, job) for job in batch]


def _require_any_sound(jobs: list[DictConfig]) -> list[Settings | UsageError]:
    """The settings of each job, or what is wrong with them: it fails in its turn. Raises the first
    one's UsageError if no job can run."""
    checked = [_check(job) for job in jobs]
    sound = [each for each in checked if not isinstance(each, UsageError)]
    for number, each in enumerate(checked):
        if isinstance(each, UsageError):
            if not sound:
                raise each
            print(f"job {number} will fail: {each}", file=sys.stderr)
    refusal = None
    for settings in sound:
        try:
            if not settings.resume:
                load_dataset(settings)
            return checked
        except UsageError as error:
            refusal = refusal or error
    assert refusal is not None
    raise refusal


def _check(job: DictConfig) -> Settings | UsageError:
    """The job's settings, or what is wrong with them."""
    from hydra.core.hydra_config import HydraConfig

    hydra_config = HydraConfig.instance()
    before = hydra_config.cfg
    hydra_config.set_config(job)  # for ${hydra:…}
    try:
        settings = read_settings(job)
        if settings.run_dir:
            raise UsageError("run_dir names the folder of one run; for a sweep: hydra.sweep.dir=…")
        require_trusted(settings)
        check_settings(settings)
    except UsageError as error:
        return error
    finally:
        hydra_config.cfg = before
    return settings


def _make(folder: Path) -> list[Path]:
    """Make the folder; returns it and those of its parents that were not there, innermost first."""
    folder = folder.absolute()
    try:
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"hydra.sweep.dir={folder} can't be made: {error.strerror}") from error
    return missing


def _remove_if_empty(made: list[Path]) -> None:
    """Take away the folder of a sweep that came to nothing, and the parents made for it."""
    left = {path.name for path in made[0].iterdir()} if made and made[0].is_dir() else None
    if left is not None and left <= {"multirun.yaml"}:
        shutil.rmtree(made[0])
        with suppress(OSError):  # a parent that others use by now
            for parent in made[1:]:
                parent.rmdir()


# One job of a sweep


def run_job(cfg: DictConfig, sweep: Path, number: int, overrides: list[str]) -> int:
    """Run a job in a folder of its own in the sweep's. However it fails, the others go on."""
    print(f"job {number}: {' '.join(overrides)}", file=sys.stderr)
    try:
        settings = read_settings(cfg)
    except UsageError as error:
        chosen = HydraConfig.get().runtime.choices
        names = {name: chosen[name] for name in ("data", "tokenizer", "model")}
        path = sweep / f"{number}-{names['model']}-{names['tokenizer']}"
        return _record_failed_job(path, _refused(cfg), names, error)
    name = f"{number}-{settings.names.model}-{settings.names.tokenizer}-s{settings.seed}"
    path = job_folder(sweep, name, settings) if settings.resume else sweep / name
    try:
        resume = settings.resume and (path / "config.yaml").exists()
        settings = settings.replace(run_dir=str(path), resume=resume)
        code = run(settings)
    except Exception as error:
        names = {**settings.names.model_dump(), "seed": settings.seed}
        return _record_failed_job(path, settings.dump(), names, error)
    if code in (TERMINATED, INTERRUPTED):  # the whole sweep was told to stop, not this job
        print(f"the sweep: the same command, resume=true hydra.sweep.dir={sweep}", file=sys.stderr)
        sys.exit(code)
    return code


def _refused(cfg: DictConfig) -> str:
    """A configuration that could not be read, as YAML; nothing of one that holds a secret."""
    try:
        secrets.reject(OmegaConf.to_container(cfg, resolve=False))
    except UsageError:
        return ""
    return OmegaConf.to_yaml(cfg)


def _record_failed_job(path: Path, config: str, names: dict[str, Any], error: Exception) -> int:
    """A job that failed before it had a folder gets one, so that the sweep's table shows it."""
    folder = RunFolder(path)
    summary = Summary(status="failed", **names)
    is_new = not path.exists()
    if is_new:
        folder.create(config)
    with folder.logging():
        record_failure(summary, "failed", error)
        if isinstance(error, UsageError):
            LOG.debug("where the job failed:", exc_info=error)
    if is_new:
        summary.write(folder.path)
    return 1
