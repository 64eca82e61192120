"""The process of one logger: hands it every row of a run's metrics.jsonl, as the file grows.

    python -m harness.loggers.follow NAME RUN STEP SECONDS [TRUSTED…]     (started by the training)

The training holds the other end of stdin: a line on it is the run's summary, the end without one
means that the training was killed. What is to be told to it is written to stdout as lines of JSON.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread, Timer
from typing import Any

from harness.common.rows import Histogram, Row
from harness.config.build import build_object
from harness.config.saved import load_settings
from harness.loggers.base import Logger
from harness.loggers.local import Local

POLL = 0.5  # seconds between looks at the file


def main() -> int:
    name, folder, step, limit, *trust = sys.argv[1:]
    # A signal to the whole group is the training's, which then tells us.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):
        os.nice(10)  # where cores are short, the training goes first
    log = logging.getLogger("harness")
    log.setLevel(logging.INFO)
    log.addHandler(_Telling())
    end = _End(float(limit))
    try:
        _follow(Path(folder), name, int(step), trust, end)
    except Exception as error:  # it ends this logger, whatever it is, and nothing else
        _tell("failed", f"{type(error).__name__}: {error}")
        return 1
    return 0


def _follow(folder: Path, name: str, step: int, trust: list[str], end: _End) -> None:
    """From open to close. Begins at the first row that the logger may lack: one that is new to the
    run gets all of them."""
    settings = load_settings(folder / "config.yaml")
    logger = build_object(settings.logger[name], Logger, f"logger.{name}", trust)
    place = folder / "loggers" / f"{name}.step"
    place.parent.mkdir(exist_ok=True)
    step = min(step, _read_step(place))
    place.write_text(f"{step}\n")
    logger.open(folder, settings, step)
    _tell("ready")
    reached = step
    for rows in _batches(folder / Local.FILE, end):
        for row in rows:
            if row["step"] >= step:
                logger.log(row)
                reached = row["step"] + 1
    logger.close(end.summary)
    # Not before: rows that a library has taken it may still hold, and lose when it is killed.
    place.write_text(f"{reached}\n")


def _batches(path: Path, end: _End) -> Iterator[list[Row]]:
    """The rows that were written since the last look, until the run has ended."""
    with path.open() as file:
        rest, ended = "", False
        while not ended:
            ended = end.came.wait(POLL)  # asked first: what was written before the end is read
            *lines, rest = (rest + file.read()).split("\n")
            yield [json.loads(line, object_hook=_revived) for line in lines]


def _revived(value: dict[str, Any]) -> Any:
    return Histogram(**value) if value.keys() == {"counts", "edges"} else value


def _read_step(place: Path) -> int:
    """Before which step the logger has all rows for good."""
    try:
        return int(place.read_text())
    except (OSError, ValueError):
        return 0


class _End:
    """The end of the run: waits for it, and gives what is left to do `limit` seconds."""

    def __init__(self, limit: float) -> None:
        self.came = Event()
        self.summary: dict[str, Any] = {"status": "killed"}
        self._limit = limit
        Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        if line := sys.stdin.readline():
            self.summary = json.loads(line)
        else:  # the training was killed: nobody reads any more what libraries print
            nobody = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nobody, sys.stdout.fileno())
            os.dup2(nobody, sys.stderr.fileno())
        self.came.set()
        give_up = Timer(self._limit, self._give_up)
        give_up.daemon = True
        give_up.start()

    def _give_up(self) -> None:
        _tell("failed", f"not finished within {self._limit:.0f} s")
        os._exit(1)


class _Telling(logging.Handler):
    """What is logged here is said by the training: on its screen and in its log."""

    def emit(self, record: logging.LogRecord) -> None:
        _tell(record.levelname, record.getMessage())


def _tell(kind: str, text: str = "") -> None:
    with suppress(OSError):  # the training has left
        print(json.dumps({kind: text}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
