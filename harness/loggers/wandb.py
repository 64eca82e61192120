"""Weights & Biases, as its users expect it: https://docs.wandb.ai/guides/track"""

from __future__ import annotations

import logging
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.common import contained
from harness.common.files import write_atomically
from harness.common.rows import Histogram, Row
from harness.common.text import printable
from harness.config.settings import Settings
from harness.loggers.base import Logger
from harness.loggers.flat import flat_results, flat_settings, sweep_of
from harness.runs import samples

if TYPE_CHECKING:
    import wandb

LOG = logging.getLogger("harness")
PROJECT = "language-model-zoo"
AXES = ("step", "tokens", "bytes", "flops", "seconds")
SCORES = ("nats_per_token", "bits_per_byte", "perplexity")
# By name: of several patterns that fit, W&B takes any.
MINIMA = ("train/loss", *(f"val/{score}" for score in SCORES))
# Below the training's patience with a logger that starts up, with time left to go offline.
REACHING = 7.0
UPLOADING = 45.0
MOST_OF_TAG = 64  # characters
NOT_IN_PROJECT = "/ \\ # ? % :"
EXIT_CODES = {"finished": 0, "stopped": 255}  # 255: W&B shows the run as killed


class WandB(Logger):
    """A run of a W&B project, which goes on when the training is resumed.

    project, entity: where it lies. group: null for the sweep's folder. tags: beside the names of
    data, tokenizer and model. mode: auto (online when logged in), online or offline; one that can't
    reach its server, or is not let in, goes on offline. checkpoint: whether the best one is
    uploaded as an artifact.

    Where a setting says nothing, W&B's own variables count: WANDB_PROJECT, WANDB_ENTITY,
    WANDB_NAME, WANDB_RUN_GROUP, WANDB_JOB_TYPE, WANDB_DIR, and WANDB_MODE (disabled: nothing is
    logged). WANDB_TAGS are added.
    """

    modules = ("wandb",)

    def __init__(
        self,
        project: str | None = None,
        entity: str | None = None,
        group: str | None = None,
        tags: list[str] | None = None,
        mode: Literal["auto", "online", "offline"] = "auto",
        checkpoint: bool = False,
    ) -> None:
        if project is not None:
            require_project(project)
        self._where = {"project": project or default_project(), "entity": entity}
        self._group = group or os.environ.get("WANDB_RUN_GROUP")
        self._tags = [*(tags or []), *filter(None, os.environ.get("WANDB_TAGS", "").split(","))]
        for tag in self._tags:
            if not 1 <= len(tag) <= MOST_OF_TAG:
                raise ValueError(f"tag {tag!r} must have 1 to {MOST_OF_TAG} characters")
        self._mode = mode
        self._disabled = mode == "auto" and os.environ.get("WANDB_MODE") == "disabled"
        self._checkpoint = checkpoint

    def open(self, folder: Path, settings: Settings, step: int) -> None:
        import wandb

        self._folder = folder
        self._run: wandb.Run
        if self._disabled:
            LOG.warning("WANDB_MODE=disabled: nothing is logged")
            return
        place = folder / "wandb"
        place.mkdir(exist_ok=True)
        os.environ.setdefault("WANDB_DATA_DIR", str(place))  # what is to be uploaded waits here
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # W&B's own, of no use offline
        wandb.setup(settings=wandb.Settings(silent=True))
        names = [name[:MOST_OF_TAG] for name in settings.names.model_dump().values()]
        about = {
            "dir": os.environ.get("WANDB_DIR") or str(folder),
            "name": os.environ.get("WANDB_NAME") or folder.absolute().name,
            "group": self._group or sweep_of(folder),
            "job_type": os.environ.get("WANDB_JOB_TYPE") or "train",
            "tags": list(dict.fromkeys([*names, *self._tags])),
            "config": flat_settings(settings),
            "allow_val_change": True,
        }
        # The agent of a W&B sweep has chosen where the run lies and what it is called.
        if "WANDB_SWEEP_ID" not in os.environ:
            about |= self._where | {"id": _run_id(place / "run-id"), "resume": "allow"}
        offline = self._is_offline()
        if not offline:
            try:
                self._run = _init(about, "online")
                LOG.info(self._run.url)
            except (wandb.Error, ValueError) as error:  # of a key that can't be one
                LOG.warning(f"can't be reached ({' '.join(str(error).split())}); going on offline")
                wandb.teardown()  # which holds the run's id
                offline = True
        if offline:
            self._run = _init(about, "offline")
            LOG.info(f"offline; upload it by: wandb sync {self._run.settings.sync_dir}")
        # Each row has all the axes, so any curve can be drawn over any of them; step is the first
        # choice. The smallest of each score is in the runs table.
        for name in AXES:
            self._run.define_metric(name)
        for name in MINIMA:
            self._run.define_metric(name, step_metric="step", summary="min,last")
        self._run.define_metric("*", step_metric="step")

    def log(self, row: Row) -> None:
        if self._disabled:
            return
        values = {name: _media(value) for name, value in row.items() if value is not None}
        self._run.log(values, step=row["step"])

    def close(self, summary: dict[str, Any]) -> None:
        if self._disabled:
            return
        self._run.summary.update(flat_results(summary))
        try:
            self._log_media(summary)
        finally:  # whatever the server says to those, it gets all rows
            try:
                self._run.finish(exit_code=EXIT_CODES.get(summary["status"], 1))
            except TimeoutError:
                place = self._run.settings.sync_dir
                LOG.warning(f"not all was uploaded in time; go on by: wandb sync {place}")

    def _log_media(self, summary: dict[str, Any]) -> None:
        """The samples; and of a finished run its report and its best checkpoint."""
        import wandb

        from harness.report.html.document import write_report
        from harness.report.records.runs import read_run
        from harness.report.statistics.ranking import compare_runs

        def attach(path: Path, kind: str, about: dict[str, Any] | None = None) -> None:
            name = f"{self._run.id}-{path.stem.split('-')[0]}"
            artifact = wandb.Artifact(name, kind, metadata=about)
            artifact.add_file(str(path), skip_cache=True)
            self._run.log_artifact(artifact)

        media: dict[str, Any] = {}
        found = samples.read(self._folder / samples.FILE)
        if rows := [[sample.step, printable(sample.text)] for sample in found]:
            media["samples"] = wandb.Table(columns=["step", "text"], data=rows)
        finished = summary["status"] == "finished"
        if finished:
            report = self._folder / "wandb" / "report.html"
            write_report(compare_runs([read_run(self._folder)]), report, [self._folder])
            media["report"] = wandb.Html(report, inject=False)
        # Beside the last row: a step of their own would be in a resumed run's way.
        self._run.log(media)
        if finished:
            attach(report, "report")
            best = sorted((self._folder / "checkpoints").glob("best-*.pt"))
            if self._checkpoint and best:
                attach(best[-1], "model", summary["best"])

    def _is_offline(self) -> bool:
        import wandb

        if self._mode != "auto":
            return self._mode == "offline"
        if "WANDB_MODE" in os.environ:
            return os.environ["WANDB_MODE"] not in ("online", "run")
        try:
            return not wandb.login(prompt=False, verify=False)
        except (wandb.Error, ValueError) as error:
            LOG.warning(f"not logged in ({' '.join(str(error).split())}); going on offline")
            return True


def default_project() -> str:
    """The project where no setting names one. Raises ValueError for a name that W&B refuses."""
    project = os.environ.get("WANDB_PROJECT") or PROJECT
    require_project(project)
    return project


def require_project(name: str) -> None:
    """Raises ValueError for a name that W&B refuses."""
    if not 1 <= len(name) <= 128 or set(name) & set(NOT_IN_PROJECT.split()):
        raise ValueError(
            f"project {name!r} must have 1 to 128 characters, none of {NOT_IN_PROJECT}"
        )


def _init(about: dict[str, Any], mode: Literal["online", "offline"]) -> wandb.Run:
    import wandb

    settings = wandb.Settings(
        program="harness.train", console="off", save_code=False, disable_git=True,
        x_disable_meta=True,  # the command line, which may hold what nobody else should read
        init_timeout=REACHING, login_timeout=REACHING,
        finish_timeout=UPLOADING, finish_timeout_raises=True,
    )  # fmt: skip
    return wandb.init(**about, mode=mode, settings=settings, reinit="create_new")


def _run_id(place: Path) -> str:
    """What a resumed training needs to go on with its run."""
    with suppress(FileNotFoundError):
        return contained.read_text(place, inside=2).strip()[:64]
    write_atomically(place, (new := secrets.token_hex(4)).encode(), inside=2)
    return new


def _media(value: Any) -> Any:
    import numpy as np
    import wandb

    if isinstance(value, Histogram):
        return wandb.Histogram(np_histogram=(np.array(value.counts), np.array(value.edges)))
    return value
