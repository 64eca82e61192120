"""trackio: a live page on this machine; no account, no connection."""

from __future__ import annotations

import hashlib
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.common.rows import Histogram, Row
from harness.config.settings import Settings
from harness.loggers.base import Logger
from harness.loggers.flat import final_scores, flat_settings, sweep_of

LOG = logging.getLogger("harness")


class Trackio(Logger):
    """A run of a trackio project, in trackio's own folder ($TRACKIO_DIR). trackio can't take a row
    back, so a resumed run takes the place of what was stored of it."""

    modules = ("trackio",)
    appends = False

    def __init__(self, project: str = "language-model-zoo") -> None:
        self._project = project

    def open(self, folder: Path, settings: Settings, step: int) -> None:
        for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):  # it stays on this machine
            os.environ.pop(name, None)
        import trackio

        # trackio knows runs by their names: the folder's, and what tells it from its namesakes.
        path = folder.resolve()
        name = f"{path.name}-{hashlib.sha256(str(path).encode()).hexdigest()[:6]}"
        with suppress(ValueError):  # there is no such project yet
            for run in trackio.Api().runs(self._project):
                if run.name == name:
                    run.delete()
        self._run = trackio.init(
            self._project, name, sweep_of(folder), config=flat_settings(settings), embed=False,
            auto_log_gpu=False, auto_log_cpu=False,
        )  # fmt: skip
        LOG.info(f"trackio show --project {self._project}")

    def log(self, row: Row) -> None:
        values = {name: _media(value) for name, value in row.items() if value is not None}
        step = values.pop("step")
        self._run.log(values, step=step)

    def close(self, summary: dict[str, Any]) -> None:
        if scores := final_scores(summary):
            self._run.log(scores, step=summary["train"]["steps"])
        self._run.finish()


def _media(value: Any) -> Any:
    import trackio

    if isinstance(value, Histogram):
        return trackio.Histogram(np_histogram=(value.counts, value.edges))
    return value
