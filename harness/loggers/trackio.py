"""trackio: a live page on this machine, from one SQLite file; no account, no connection."""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.common.rows import Histogram, Row
from harness.config.settings import Settings
from harness.loggers.base import Logger
from harness.loggers.flat import flat_results, flat_settings, sweep_of

LOG = logging.getLogger("harness")


class Trackio(Logger):
    """A run of a trackio project, in trackio's own folder ($TRACKIO_DIR)."""

    def __init__(self, project: str = "language-model-zoo") -> None:
        if find_spec("trackio") is None:
            raise ValueError("needs the package trackio: pip install 'language-model-zoo[trackio]'")
        self._project = project

    def open(self, folder: Path, settings: Settings, step: int) -> None:
        for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):  # it stays on this machine
            os.environ.pop(name, None)
        import trackio
        from trackio.sqlite_storage import SQLiteStorage

        name = _run_name(folder)
        self._run = trackio.init(
            self._project, name, sweep_of(folder), config=flat_settings(settings),
            resume="allow", embed=False, auto_log_gpu=False, auto_log_cpu=False,
        )  # fmt: skip
        # Only now: trackio finds the run that it goes on with by the rows of it.
        database = SQLiteStorage.get_project_db_path(self._project)
        if database.exists():
            _forget(database, name, step)
        LOG.info(f"trackio show --project {self._project}")

    def log(self, row: Row) -> None:
        values = {name: _media(value) for name, value in row.items() if value is not None}
        step = values.pop("step")
        self._run.log(values, step=step)

    def close(self, summary: dict[str, Any]) -> None:
        results = flat_results({"test": summary.get("test"), "best": summary.get("best")})
        final = {name: value for name, value in results.items() if value is not None}
        if final:
            self._run.log(final, step=summary["train"]["steps"])
        self._run.finish()


def _run_name(folder: Path) -> str:
    """trackio knows runs by their names: the folder's, and what tells it from its namesakes."""
    path = folder.resolve()
    return f"{path.name}-{hashlib.sha256(str(path).encode()).hexdigest()[:6]}"


def _forget(database: Path, name: str, step: int) -> None:
    """Drop the rows that will come again."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("DELETE FROM metrics WHERE run_name = ? AND step >= ?", (name, step))


def _media(value: Any) -> Any:
    import trackio

    if isinstance(value, Histogram):
        return trackio.Histogram(np_histogram=(value.counts, value.edges))
    return value
