"""Trainings begun from the page: `python -m harness.train`, and nothing else, without a shell."""

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

from hydra.core.override_parser.types import Quote, QuotedString

from harness.common.errors import UsageError

COMMAND = (sys.executable, "-m", "harness.train")
# What of a process's output is looked at: where its runs lie is said early, how it failed late.
HEAD_BYTES, TAIL_BYTES = 1 << 18, 1 << 12
RUN_FOLDER = re.compile(r"^run folder: (.+)$", re.MULTILINE)


class Training:
    """One process. It outlives the page's server: what it prints goes to a file without a name."""

    def __init__(self, arguments: Sequence[str], cwd: Path) -> None:
        self._cwd = cwd
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        self._process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=self._printed,
            stderr=self._printed,
            start_new_session=True,  # Ctrl-C in the server's terminal is not meant for it
        )

    def folders(self) -> list[Path]:
        """Of the runs that it has begun so far."""
        return [self._cwd / found for found in RUN_FOLDER.findall(self._read(0, HEAD_BYTES))]

    def exit_code(self) -> int | None:
        return self._process.poll()

    def error(self) -> str | None:
        """Why it failed, in one line; None while it has not."""
        if not self.exit_code():
            return None
        size = os.fstat(self._printed.fileno()).st_size
        lines = self._read(max(0, size - TAIL_BYTES), TAIL_BYTES).strip().splitlines()
        said = [line for line in lines if line.startswith("error: ")] or lines
        return said[-1].removeprefix("error: ") if said else f"exit code {self.exit_code()}"

    def stop(self) -> None:
        """Asks it to save and leave. A process of ours that ended is known to have: its number
        can't be another's yet."""
        self._process.terminate()

    def _read(self, start: int, size: int) -> str:
        # Not by seeking: the place in the file is shared with the process that writes it.
        return os.pread(self._printed.fileno(), size, start).decode(errors="replace")


class Trainings:
    """Those begun since the server was. Safe to use from many threads."""

    def __init__(self, cwd: Path) -> None:
        self._cwd = cwd
        self._all: dict[float, Training] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def start(self, arguments: Sequence[str]) -> int:
        """Begins a training; returns its number. Raises UsageError for what is no setting."""
        for argument in arguments:
            if "\0" in argument:
                raise UsageError("a setting can't hold a NUL character")
            if argument.startswith("-") and argument not in ("-m", "--multirun"):
                raise UsageError(f"{argument}: only settings, KEY=VALUE, and -m for a sweep")
        with self._lock:
            number = next(self._numbers)
            try:
                self._all[number] = Training(arguments, self._cwd)
            except OSError as error:
                raise UsageError(f"no process could be started: {error.strerror}") from error
            return number

    def state(self, number: float) -> dict[str, Any] | None:
        """How far it is; None if there is none of that number."""
        with self._lock:
            training = self._all.get(number)
            if training is None:
                return None
            code = training.exit_code()
            return {"folders": training.folders(), "exit_code": code, "error": training.error()}

    def folders(self) -> list[Path]:
        """Of all runs begun so far."""
        with self._lock:
            return [folder for training in self._all.values() for folder in training.folders()]

    def stop(self, number: float) -> bool:
        """Stops that one; False if there is none of that number."""
        with self._lock:
            training = self._all.get(number)
            if training is not None:
                training.stop()
            return training is not None


def split(line: str) -> list[str]:
    """The arguments in a command line as one types it, with or without `python -m harness.train`.

    Raises UsageError for quotes that do not end.
    """
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise UsageError(f"the command can't be read: {error}") from error
    return words[words.index("harness.train") + 1 :] if "harness.train" in words else words


def resume(folder: Path) -> list[str]:
    """The arguments that go on with a stopped run, whatever its folder is called."""
    # A folder's name may hold anything, `${…}` included, which here means nothing.
    plain = QuotedString(str(folder).replace("${", "\\${"), Quote.double)
    return [f"run_dir={plain.with_quotes()}", "resume=true"]
