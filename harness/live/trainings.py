"""Trainings started from the page: `python -m harness.train` and nothing else, without a shell."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.common.errors import UsageError
from harness.config.spelling import override

COMMAND = (sys.executable, "-m", "harness.train")
# The parts of a process's output that are read: its run folders come first, its error last.
HEAD_BYTES, TAIL_BYTES = 1 << 18, 1 << 12
MOST_AT_ONCE, MOST_ENDED = 64, 256  # trainings; of the ended ones the last are remembered
RUN_FOLDER = re.compile(r"^run folder: (.+)$", re.MULTILINE)


class Training:
    """One process, which outlives the server. Its output goes to an unnamed temporary file, which
    is closed when the process has ended and what was printed has been read."""

    def __init__(self, arguments: Sequence[str], cwd: Path) -> None:
        self._cwd = cwd
        self._folders: list[Path] = []
        self._error: str | None = None
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        self._process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=self._printed,
            stderr=self._printed,
            start_new_session=True,  # Ctrl-C in the server's terminal is not meant for it
        )

    def look(self) -> None:
        """Read what it has printed; at its end for the last time."""
        if self._printed.closed:
            return
        code = self._process.poll()
        found = RUN_FOLDER.findall(self._read(0, HEAD_BYTES))
        self._folders = [self._cwd / each for each in found]
        if code is not None:
            self._error = self._last_words(code) if code else None
            self._printed.close()

    def state(self) -> dict[str, Any]:
        """The folders of its runs so far, its exit code, and in one line why it failed."""
        self.look()
        ended = self._printed.closed
        code = self._process.returncode if ended else None
        return {"folders": list(self._folders), "exit_code": code, "error": self._error}

    @property
    def has_ended(self) -> bool:
        return self._printed.closed

    def _last_words(self, code: int) -> str:
        size = os.fstat(self._printed.fileno()).st_size
        lines = self._read(max(0, size - TAIL_BYTES), TAIL_BYTES).strip().splitlines()
        said = [line for line in lines if line.startswith("error: ")] or lines
        return said[-1].removeprefix("error: ") if said else f"exit code {code}"

    def stop(self) -> None:
        """Send SIGTERM: it saves and exits. Popen never signals a process that has ended."""
        self._process.terminate()

    def _read(self, start: int, size: int) -> str:
        # Not by seeking: the file's position is shared with the process that writes it.
        return os.pread(self._printed.fileno(), size, start).decode(errors="replace")


class Trainings:
    """The trainings that this server started: those that run, and the last that have ended.
    Thread-safe."""

    def __init__(self, cwd: Path) -> None:
        self._cwd = cwd
        self._all: dict[float, Training] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def start(self, arguments: Sequence[str]) -> int:
        """Start a training; returns its number. Raises UsageError for an invalid argument."""
        for argument in arguments:
            if "\0" in argument:
                raise UsageError("a setting can't hold a NUL character")
            if argument.startswith("-") and argument not in ("-m", "--multirun"):
                raise UsageError(f"{argument}: only settings, KEY=VALUE, and -m for a sweep")
        with self._lock:
            for training in self._all.values():
                training.look()
            ended = [number for number, each in self._all.items() if each.has_ended]
            if len(self._all) - len(ended) >= MOST_AT_ONCE:
                raise UsageError(f"{MOST_AT_ONCE} trainings run already; stop one, or wait for one")
            for number in ended[:-MOST_ENDED]:
                del self._all[number]
            number = next(self._numbers)
            try:
                self._all[number] = Training(arguments, self._cwd)
            except OSError as error:
                raise UsageError(f"no process could be started: {error.strerror}") from error
            return number

    def state(self, number: float) -> dict[str, Any] | None:
        """Its run folders, exit code and error; None if there is no such training."""
        with self._lock:
            training = self._all.get(number)
            return None if training is None else training.state()

    def folders(self) -> list[Path]:
        """The folders of all runs started so far."""
        with self._lock:
            return [folder for each in self._all.values() for folder in each.state()["folders"]]

    def stop(self, number: float) -> bool:
        """False if there is no such training."""
        with self._lock:
            training = self._all.get(number)
            if training is not None:
                training.stop()
            return training is not None


def split(line: str) -> list[str]:
    """The arguments of a typed command line, with or without `python -m harness.train`.

    Raises UsageError for quotes that do not end.
    """
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise UsageError(f"the command can't be read: {error}") from error
    return words[words.index("harness.train") + 1 :] if "harness.train" in words else words


def resume(folder: Path) -> list[str]:
    """The arguments that resume a run, whatever its folder is called."""
    return [override("run_dir", str(folder)), "resume=true"]
