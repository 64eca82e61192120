"""Feeding the loggers that are not the local one, at no cost to the training.

They run in one process that reads metrics.jsonl as it grows (loggers/follow.py). The training
writes that file anyhow and knows no more of them: they can't slow a step down, change it, or end
it.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from tempfile import TemporaryFile
from threading import Thread
from time import monotonic
from typing import Any

from harness.common.interrupt import Interrupt
from harness.common.rows import Row, strict_json
from harness.config.settings import Settings
from harness.loggers.base import Logger

LOG = logging.getLogger("harness")
LEVELS = logging.getLevelNamesMapping()
START_UP = 15.0  # seconds that a training waits for its loggers, all together
LEAVING = 5.0  # from a signal on; they may go on without us
FINISHING = 60.0  # at any other end


class Followers(Logger):
    """The loggers `names` of the run's configuration."""

    def __init__(self, names: Sequence[str], interrupt: Interrupt) -> None:
        self._names = names
        self._interrupt = interrupt
        self._ready: set[str] = set()
        self._ended: set[str] = set()
        self._warned: set[str] = set()
        self._process: subprocess.Popen[str] | None = None
        # A message of a logger has come, or a signal (SimpleQueue's `put` is safe in a handler).
        self._news: SimpleQueue[None] = SimpleQueue()
        interrupt.wake = lambda: self._news.put(None)

    def open(self, folder: Path, settings: Settings, step: int) -> None:
        """Start them, and wait until they are ready, so that no step shares the machine with it."""
        arguments = [str(folder), str(step), f"{FINISHING:g}", *settings.trust]
        try:
            # What libraries print. Not a pipe: they may print when the training has left.
            self._output = TemporaryFile()  # noqa: SIM115 - read when the process has died
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "harness.loggers.follow", *arguments],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._output, text=True,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                start_new_session=True,  # a Ctrl-C is the training's, which then tells the loggers
            )  # fmt: skip
        except OSError as error:  # no process, memory or disk left
            self._warn(self._names, f"can't be started ({error})")
            return
        Thread(target=self._listen, args=(self._process,), daemon=True).start()
        self._wait_for(self._ready, START_UP, at_signal=0)
        if self._interrupt.received is None:
            self._warn(self._missing(self._ready), f"not ready after {START_UP:g} s")

    def log(self, row: Row) -> None:
        """Nothing to do: it is in metrics.jsonl by now."""

    def close(self, summary: dict[str, Any]) -> None:
        if self._process is None:
            return
        assert self._process.stdin is not None
        with suppress(OSError):  # it has died, which was warned of
            self._process.stdin.write(strict_json(summary) + "\n")
            self._process.stdin.close()
        stopped = summary["status"] == "stopped"
        # From here on they have FINISHING. Those that were warned of are not waited for.
        self._ended |= self._warned
        limit = LEAVING if stopped else FINISHING + LEAVING
        self._wait_for(self._ended, limit, at_signal=LEAVING)
        self._warn(
            self._missing(self._ended),
            f"not finished yet, goes on without the training for up to {FINISHING:g} s",
        )

    def _missing(self, among: set[str]) -> list[str]:
        return [name for name in self._names if name not in among]

    def _wait_for(self, names: set[str], seconds: float, at_signal: float) -> None:
        """Until all are among `names`, for so many seconds; from a signal on for `at_signal` more
        at most."""
        deadline = monotonic() + seconds
        while self._missing(names):
            if self._interrupt.received is not None:
                deadline = min(deadline, monotonic() + at_signal)
            if (left := deadline - monotonic()) <= 0:
                return
            with suppress(Empty):
                self._news.get(timeout=left)

    def _listen(self, process: subprocess.Popen[str]) -> None:
        """Read the process's messages until it ends."""
        assert process.stdout is not None
        for line in process.stdout:
            name, kind, text = json.loads(line)
            if kind in LEVELS:
                LOG.log(LEVELS[kind], f"{name}: {text}")
            else:
                self._hear(name, kind, text)
        if lost := self._missing(self._ended):
            self._output.seek(0)
            last = self._output.read().decode(errors="replace").strip().rpartition("\n")[2]
            self._warn(lost, f"died ({last or 'nothing was said'})")
            for name in lost:
                self._hear(name, "ended", "")

    def _hear(self, name: str, kind: str, text: str) -> None:
        if kind == "failed":
            self._warn([name], f"failed ({text})")
        self._ready.add(name)
        if kind in ("ended", "failed"):
            self._ended.add(name)
        self._news.put(None)

    def _warn(self, names: Iterable[str], what: str) -> None:
        """Of each logger once: one that is in trouble stays in trouble."""
        if new := [name for name in names if name not in self._warned]:
            self._warned.update(new)
            LOG.warning(f"logger {', '.join(new)}: {what}; the numbers are in metrics.jsonl")
