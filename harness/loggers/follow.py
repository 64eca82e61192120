"""The process of a run's loggers: gives each every row of metrics.jsonl, as the file grows.

    python -m harness.loggers.follow RUN STEP SECONDS [TRUSTED…]     (started by the training)

Each logger has a thread that reads the file by itself, so that none waits for another. The training
holds the other end of stdin: a line on it is the run's summary, the end without one means that the
training was killed. Messages to the training are lines on stdout: a JSON list of the logger's name,
a kind and a text.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import sys
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from threading import Event, Lock, Thread, Timer, current_thread
from typing import Any

from harness.common import contained
from harness.common.files import write_atomically
from harness.common.interrupt import STOPPING
from harness.config.build import build_object
from harness.config.saved import load_settings
from harness.config.settings import Settings
from harness.loggers.base import Logger
from harness.runs import metrics

# Seconds between looks at the file: rows come in batches, and do not wake this process each.
POLL = 0.5
# Libraries are imported one after the other: circular imports fail in two threads at a time.
IMPORTING = Lock()
OPENER = partial(contained.opener, inside=2)
TRAINING = os.dup(1)  # what libraries print goes where stderr does


def main() -> int:
    run, step, limit, *trust = sys.argv[1:]
    os.dup2(2, 1)
    # A signal to the whole group is meant for the training, which then tells us.
    for number in (signal.SIGINT, *STOPPING):
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError):
        os.nice(10)  # where cores are short, the training goes first
    log = logging.getLogger("harness")
    log.setLevel(logging.INFO)
    log.addHandler(_Telling())
    folder = Path(run)
    settings = load_settings(folder / "config.yaml")
    (folder / "loggers").mkdir(exist_ok=True)
    for name in ("loggers", "wandb", "tensorboard"):
        contained.names(folder / name)  # raises for a link, through which they would write
    end = _End()
    threads = [
        Thread(
            target=_follow, args=(folder, settings, trust, int(step), end), name=name, daemon=True
        )
        for name in settings.logger
        if name != "local"
    ]
    with open(folder / "loggers" / "lock", "ab", opener=OPENER) as lock:
        # The loggers of a training that was killed may still be storing its rows.
        with suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        for thread in threads:
            thread.start()
        end.wait()
        give_up = Timer(float(limit), _give_up, (threads, limit))
        give_up.daemon = True
        give_up.start()
        for thread in threads:
            thread.join()
    return 0


class _End:
    """The end of the run, and how it ended."""

    def __init__(self) -> None:
        self.came = Event()
        self.summary: dict[str, Any] = {"status": "killed"}

    def wait(self) -> None:
        if line := sys.stdin.readline():
            self.summary = json.loads(line)
        self.came.set()


def _follow(folder: Path, settings: Settings, trust: list[str], step: int, end: _End) -> None:
    """One logger, in the thread of its name, from its making to its end."""
    name = current_thread().name
    try:
        with IMPORTING:
            logger = build_object(settings.logger[name], Logger, f"logger.{name}", trust)
            for module in logger.modules:
                import_module(module)
        _feed(logger, name, folder, settings, step, end)
        _tell(name, "ended")
    except Exception as error:  # it ends this logger, whatever it is, and nothing else
        _tell(name, "failed", f"{type(error).__name__}: {error}")


def _feed(
    logger: Logger, name: str, folder: Path, settings: Settings, step: int, end: _End
) -> None:
    """From open to close. Begins at the first row that the logger may lack: one that is new to the
    run gets all of them."""
    place = folder / "loggers" / f"{name}.step"
    step = min(step, _read_step(place)) if logger.appends else 0
    write_atomically(place, b"%d\n" % step, inside=2)
    logger.open(folder, settings, step)
    _tell(name, "ready")
    with contained.open_binary(folder / metrics.FILE) as file:
        reached, ended = step, False
        while not ended:
            ended = end.came.wait(POLL)  # asked first: what was written before the end is read
            for line in metrics.whole_lines(file):
                row = metrics.parse_row(line)
                if row is not None and row["step"] >= step:
                    # What another wrote may have names that no page can show.
                    logger.log({name: row[name] for name in row if name.isprintable()})
                    reached = row["step"] + 1
    logger.close(end.summary)
    # Not before: rows that a library has taken it may still hold, and lose when it is killed.
    write_atomically(place, b"%d\n" % reached, inside=2)


def _read_step(place: Path) -> int:
    """Before which step the logger has all rows for good."""
    try:
        return int(contained.read(place, inside=2))
    except (OSError, ValueError):
        return 0


def _give_up(threads: list[Thread], limit: str) -> None:
    for thread in threads:
        if thread.is_alive():
            _tell(thread.name, "failed", f"not finished within {limit} s")
    os._exit(1)


class _Telling(logging.Handler):
    """What a logger logs, in its thread, is said by the training: on its screen and in its log."""

    def emit(self, record: logging.LogRecord) -> None:
        _tell(str(record.threadName), record.levelname, record.getMessage())


def _tell(name: str, kind: str, text: str = "") -> None:
    """In one short write, which no other thread's gets into."""
    with suppress(OSError):  # the training has left
        os.write(TRAINING, f"{json.dumps([name, kind, text[:600]])}\n".encode())


if __name__ == "__main__":
    sys.exit(main())
