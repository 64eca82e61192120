"""Feeding the loggers that are not the local one, at no cost to the training.

Each runs in a process of its own that reads metrics.jsonl as it grows (loggers/follow.py). The
training writes that file anyhow and knows no more of them: they can't slow a step down, change it,
or end it.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
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
LOOK = 0.1  # between looks whether a signal has come


class Followers(Logger):
    """The loggers `names` of the run's configuration."""

    def __init__(self, names: Sequence[str], interrupt: Interrupt) -> None:
        self._names = names
        self._interrupt = interrupt
        self._followers: list[_Follower] = []

    def open(self, folder: Path, settings: Settings, step: int) -> None:
        """Start them, and wait until they are ready, so that no step shares the machine with it."""
        arguments = [str(folder), str(step), str(FINISHING), *settings.trust]
        for name in self._names:
            try:
                self._followers.append(_Follower(name, arguments))
            except OSError as error:  # no process or no memory left
                LOG.warning(f"logger {name} can't be started ({error}); the training goes on")
        self._wait([follower.ready for follower in self._followers], START_UP, at_signal=0)
        if self._interrupt.received is None:
            for follower in self._followers:
                follower.require_ready()

    @property
    def process_groups(self) -> list[int]:
        """The ids of the loggers' processes, each with those that it has started."""
        return [follower.process_group for follower in self._followers]

    def log(self, row: Row) -> None:
        """Nothing to do: it is in metrics.jsonl by now."""

    def close(self, summary: dict[str, Any]) -> None:
        stopped = summary["status"] == "stopped"
        for follower in self._followers:
            follower.tell(summary)
        # Told to end, each gives itself FINISHING.
        self._wait(
            [follower.ended for follower in self._followers if not follower.warned],
            LEAVING if stopped else FINISHING + LEAVING,
            at_signal=LEAVING,
        )
        for follower in self._followers:
            follower.require_ended()

    def _wait(self, events: list[Event], seconds: float, at_signal: float) -> None:
        """Until all are set, for so many seconds; once a signal has come, for `at_signal` more."""
        deadline, signalled = monotonic() + seconds, False
        for event in events:
            while (left := deadline - monotonic()) > 0 and not event.wait(min(LOOK, left)):
                if self._interrupt.received is not None and not signalled:
                    deadline, signalled = min(deadline, monotonic() + at_signal), True


class _Follower:
    """One logger's process, and what it says."""

    def __init__(self, name: str, arguments: list[str]) -> None:
        self._name = name
        self.warned = False
        self.ready = Event()
        self.ended = Event()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "harness.loggers.follow", name, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace",
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,  # a Ctrl-C is the training's, which then tells the loggers
        )  # fmt: skip
        self.process_group = self._process.pid
        Thread(target=self._listen, daemon=True).start()

    def require_ready(self) -> None:
        if not self.ready.is_set():
            self._warn(f"is not ready after {START_UP:.0f} s; the training goes on without it")

    def tell(self, summary: dict[str, Any]) -> None:
        """How the run ended."""
        assert self._process.stdin is not None
        with suppress(OSError):  # it has ended by itself, and was heard of
            self._process.stdin.write(strict_json(summary) + "\n")
            self._process.stdin.close()

    def require_ended(self) -> None:
        if not self.ended.is_set():
            self._warn(f"has not finished yet; it goes on by itself for up to {FINISHING:.0f} s")

    def _listen(self) -> None:
        """Pass on what the process says: lines of JSON; anything else is its libraries' noise, of
        which the last line tells why it died."""
        assert self._process.stdout is not None
        noise = ""
        for line in self._process.stdout:
            try:
                ((kind, text),) = json.loads(line).items()
            except (ValueError, AttributeError):
                kind = text = ""
            if kind == "ready":
                self.ready.set()
            elif kind == "failed":
                self._warn(f"failed ({text}); the training goes on without it")
            elif kind in LEVELS:
                LOG.log(LEVELS[kind], f"{self._name}: {text}")
            else:
                noise = line.strip() or noise
        if self._process.wait():
            self._warn(f"died ({noise}); the training goes on without it")
        self.ready.set()
        self.ended.set()

    def _warn(self, what: str) -> None:
        """Once: a logger that is in trouble stays in trouble."""
        if not self.warned:
            self.warned = True
            LOG.warning(f"logger {self._name} {what}; the numbers are in metrics.jsonl")
