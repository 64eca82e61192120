"""What a sweep does before its first job and after its last (a Hydra callback), and where each of
its jobs lies."""

from __future__ import annotations

import atexit
import shutil
import sys
import traceback
from collections.abc import Container, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness import config, identity, secrets
from harness.cli import fail, run_tool
from harness.errors import UsageError
from harness.run_folder import RunFolder
from harness.values import show
from harness.world import World

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn

    from harness.config import Settings


class SweepReport(Callback):
    """Refuses a sweep that can't be; at the end prints the table and writes report.html.

    Hydra turns a callback's exceptions into warnings, so these end the process themselves.
    """

    def __init__(self) -> None:
        self._failed = False
        self._jobs: list[Settings | UsageError] = []

    # Hydra passes these by name, so `config` hides the module here.
    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            World.of_environment().require_alone()
            folder = _folder(config)
            _require_no_secret(config)
            _require_folder(folder, config.get("resume") is True)
            self._jobs = _require_any_sound(_jobs(config))
            made = _make(folder)
            if finished := _count(self._jobs, _digests(folder)):
                print(f"{finished} of {len(self._jobs)} jobs are finished", file=sys.stderr)
        except (UsageError, OmegaConfBaseException) as error:
            sys.exit(fail(error, 2))
        atexit.register(_remove_if_empty, made)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        self._failed |= job_return._return_value != 0

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            run_tool(lambda: self._report(_folder(config)))
        except Exception:
            traceback.print_exc()
            sys.exit(1)

    def _report(self, folder: Path) -> int:
        from harness.report.html.document import write_report
        from harness.report.records.runs import find_runs
        from harness.report.text.terminal import print_comparison

        if not any(folder.rglob("summary.json")):  # a sweep of harness.bench leaves no runs
            return int(self._failed)
        records = find_runs([folder])
        print_comparison(records, sys.stdout)
        write_report(records, folder / "report.html", [folder])
        print(f"{folder}/report.html written", file=sys.stderr)
        # By configuration, as the table may show runs of other jobs, made before in this folder.
        return int(_count(self._jobs, _digests(folder)) < len(self._jobs))


def job_folder(sweep: Path, name: str, settings: Settings) -> Path:
    """Where a job of a sweep that goes on lies: where a run of its configuration is already,
    whatever its number was then, a finished one first; else in a folder of its own."""
    wanted, own = identity.digest(settings), sweep / name
    same = [path for path in (own, *_runs(sweep)) if identity.digest_of_run(path) == wanted]
    if same:
        return next(filter(_is_finished, same), same[0])
    return sweep / f"{name}-{wanted[:6]}" if own.exists() else own


def _runs(sweep: Path) -> list[Path]:
    return sorted(path.parent for path in sweep.glob("[!.]*/config.yaml"))


def _digests(sweep: Path) -> set[str | None]:
    """Of the configurations that are finished."""
    return {identity.digest_of_run(path) for path in _runs(sweep) if _is_finished(path)}


def _is_finished(folder: Path) -> bool:
    return RunFolder(folder).read_summary().get("status") == "finished"


def _count(jobs: Iterable[Settings | UsageError], digests: Container[str | None]) -> int:
    """How many of the jobs have one of these digests."""
    sound = (job for job in jobs if not isinstance(job, UsageError))
    return sum(identity.digest(job) in digests for job in sound)


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
    secrets.require_none({key: value for key, value in plain.items() if key != "hydra"})


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
    from harness.train import load_dataset

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

    from harness import train

    hydra_config = HydraConfig.instance()
    before = hydra_config.cfg
    hydra_config.set_config(job)  # for ${hydra:…}
    try:
        settings = config.read(job)
        if settings.run_dir:
            raise UsageError("run_dir names the folder of one run; for a sweep: hydra.sweep.dir=…")
        config.require_trusted(settings)
        train.check(settings)
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
