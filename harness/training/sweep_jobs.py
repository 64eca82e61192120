"""The jobs of a sweep: where they lie, which are finished, running one."""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from harness.common.errors import UsageError
from harness.common.interrupt import STOPPED
from harness.common.parent import leave_with_parent
from harness.config import secrets
from harness.config.settings import Names, Role, Settings, read_settings
from harness.config.spelling import typed
from harness.report.statistics.power import PRIOR_SPREAD, plan
from harness.runs.digest import digest, digest_of_run
from harness.runs.folder import RunFolder
from harness.runs.fork import forked_settings
from harness.runs.lock import FolderInUse
from harness.runs.resume import is_finished
from harness.runs.summary import FILE, Summary, status_of
from harness.training.devices import Place, in_use
from harness.training.outcome import log_failure, record_failure
from harness.training.run import run

LOG = logging.getLogger("harness")
CANDIDATES = "candidates"  # a file in a sweep's folder: validation is to choose among the jobs


def job_folder(sweep: Path, name: str, settings: Settings) -> Path:
    """The folder of a job in a resumed sweep: that of a run with the same configuration, whatever
    its number, a finished one first; else a new one."""
    wanted, own = digest(settings), sweep / name
    if digest_of_run(own) == wanted and status_of(own) == "finished":
        return own  # without a look at all others
    same = _by_digest(sweep, _started(sweep)).setdefault(wanted, [])
    if same:
        first = own if own in same else same[0]
        return next((path for path in same if status_of(path) == "finished"), first)
    same.append(own if RunFolder(own).is_unused() else sweep / f"{name}-{wanted[:6]}")
    return same[0]


def count_finished(sweep: Path, jobs: Iterable[Settings | UsageError]) -> int:
    """How many jobs have a finished run of their configuration in the sweep's folder."""
    finished = {digest_of_run(path) for path in _runs(sweep) if status_of(path) == "finished"}
    return sum(digest(job) in finished for job in jobs if not isinstance(job, UsageError))


def has_variants(jobs: Iterable[Settings | UsageError]) -> bool:
    """Whether a model, with one text and tokenizer, has several configurations among the jobs."""
    configurations: dict[Names, set[str]] = {}
    for job in jobs:
        if isinstance(job, Settings):
            same = configurations.setdefault(job.names, set())
            same.add(digest(job, but_for=Role.SAME_CONFIGURATION))
    return any(len(same) > 1 for same in configurations.values())


def plan_of(jobs: Iterable[Settings | UsageError]) -> str | None:
    """What the seeds of a comparison can find; None for a single configuration."""
    seeds: dict[str, set[int]] = {}
    for job in jobs:
        if isinstance(job, Settings):
            seeds.setdefault(digest(job, but_for=Role.SAME_CONFIGURATION), set()).add(job.seed)
    if len(seeds) < 2:
        return None
    pairs = len(seeds) * (len(seeds) - 1) // 2
    return plan(min(map(len, seeds.values())), PRIOR_SPREAD, pairs, "assumed")


def _runs(sweep: Path) -> list[Path]:
    return sorted(path.parent for path in sweep.glob("[!.]*/config.yaml"))


@functools.cache  # else each job would look at all runs
def _by_digest(sweep: Path, started: int) -> dict[str | None, list[Path]]:
    """The runs that were there, by their configuration; each job adds its own."""
    found: dict[str | None, list[Path]] = {}
    for path in _runs(sweep):
        found.setdefault(digest_of_run(path), []).append(path)
    return found


def _started(sweep: Path) -> int:
    """Tells one start of a sweep from the next: Hydra then writes its file anew."""
    file = sweep / "multirun.yaml"
    return file.stat().st_mtime_ns if file.exists() else 0


def run_job(cfg: DictConfig, sweep: Path, number: int, overrides: list[str]) -> int:
    """Run a job in its own folder of the sweep; returns the exit code. A failure does not stop the
    other jobs."""
    leave_with_parent()
    print(f"job {number}: {' '.join(overrides)}", file=sys.stderr)
    try:
        settings = forked_settings(read_settings(cfg), overrides)
    except UsageError as error:
        chosen = HydraConfig.get().runtime.choices
        names = {name: chosen[name] for name in ("data", "tokenizer", "model")}
        path = sweep / f"{number}-{names['model']}-{names['tokenizer']}"
        return _record_failed_job(path, _yaml_without_secrets(cfg), names, error)
    name = f"{number}-{settings.names.model}-{settings.names.tokenizer}-s{settings.seed}"
    path = job_folder(sweep, name, settings) if settings.resume else sweep / name
    train = partial(_train, settings, path, (sweep / CANDIDATES).exists())
    devices = in_use()
    if devices is not None and not (settings.resume and is_finished(RunFolder(path), settings)):
        devices.start(f"job {number}", train)
        return 0  # how it ends is seen in its folder
    code = train(Place(beside=_workers() - 1))
    if code in STOPPED:  # the signal was meant for the whole sweep
        print(go_on(sweep), file=sys.stderr)
        sys.exit(code)
    return code


def _train(settings: Settings, path: Path, candidate: bool, place: Place) -> int:
    resume = "auto" if settings.resume else False
    asked = settings.replace(run_dir=str(path), resume=resume)
    try:
        return run(asked, candidate=candidate, place=place)
    except FolderInUse as error:  # the files there are another process's
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Exception as error:
        names = {**settings.names.model_dump(), "seed": settings.seed}
        return _record_failed_job(path, settings.dump(), names, error)


def _workers() -> int:
    """Of a launcher that trains several jobs at a time (hydra/launcher=joblib)."""
    workers = HydraConfig.get().launcher.get("n_jobs", 1)
    return workers if workers > 0 else os.cpu_count() or 1


def go_on(sweep: Path) -> str:
    """How a sweep that was stopped goes on."""
    place = typed("hydra.sweep.dir", str(sweep))
    return f"the sweep: the same command, resume=true {place}"


def _yaml_without_secrets(cfg: DictConfig) -> str:
    """An invalid configuration as YAML; "" if it holds a secret."""
    try:
        secrets.reject(OmegaConf.to_container(cfg, resolve=False))
    except UsageError:
        return ""
    return OmegaConf.to_yaml(cfg)


def _record_failed_job(path: Path, config: str, names: dict[str, Any], error: Exception) -> int:
    """Make a folder for a job that failed before it had one, so that the sweep's table shows it."""
    folder = RunFolder(path)
    summary = Summary(status="failed", **names)
    is_new = not path.exists()
    if is_new:
        folder.create(config)
    with folder.logging():
        record_failure(summary, error)
        log_failure(error)
        if isinstance(error, UsageError):
            LOG.debug("where the job failed:", exc_info=error)
    if not (folder.path / FILE).exists():
        summary.write(folder.path)
    return 1
