"""Fuzzing of all that reads a run's files: each damaged file is read or refused in words, in
bounded time and memory."""

from __future__ import annotations

import json
import shutil
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import hypothesis

from harness.common.errors import RunFailure, UsageError
from harness.common.files import atomic_write
from harness.diagnostics.faults.life import forked, limit_memory
from harness.diagnostics.faults.readers import Reader, readers
from harness.diagnostics.faults.scenarios import scenarios
from harness.diagnostics.faults.tries import Attempt, Options, Result
from harness.runs.damage import DamageError
from zoo_tokenizers import TokenizerError

REFUSALS = (DamageError, UsageError, RunFailure, TokenizerError, OSError)
SECONDS, GIGABYTES = 20, 1.5  # at most for one file, beyond what the process has
ROUND = 100  # files that Hypothesis damages without a pause
LEAST = 10  # files that are read, however little time there is


class Slow(BaseException):
    """A file took longer than SECONDS to read."""


def attempts(options: Options, folder: Path) -> dict[int, Attempt]:
    """One for each reader, which share the time."""
    scenarios(folder, (), ("fresh",))
    found = readers(folder / "fresh" / "run", folder / "tokenizers")
    seconds = options.minutes * 60 / len(found)

    def attempt(reader: Reader) -> Attempt:
        return lambda folder: fuzzed(reader, folder, seconds, options.seed)

    return {number: attempt(reader) for number, reader in enumerate(found)}


def fuzzed(reader: Reader, folder: Path, seconds: float, seed: int) -> list[Result]:
    """Damage one reader's file for so long, in a fork; in another one if a file ends the process.
    folder: an empty one."""
    deadline = time.monotonic() + seconds
    results: list[Result] = []
    while (left := deadline - time.monotonic()) > 0 or not results:
        inner = folder / str(len(results))
        fuzzing = Fuzzing(reader, inner)
        life = forked(lambda: fuzzing.run(left, seed + len(results)), 3 * left + 120)  # noqa: B023
        found = fuzzing.found()
        if life.code != 0:
            verdict = "hang" if life.code is None else "traceback"
            detail = f"exit code {life.code}: {life.last_line}"
            found.append(Result(fuzzing.group, f"{inner}/copy", verdict, detail))
        results += [replace(each, peak_bytes=life.peak_bytes) for each in found]
    return results


class Fuzzing:
    """One reader's, in a process of its own."""

    def __init__(self, reader: Reader, folder: Path) -> None:
        self.group = f"{reader.name}: {reader.path.name}"
        self._reader, self._folder = reader, folder
        self._content = (reader.folder / reader.path).read_bytes() if _is_there(reader) else b""
        self._copy = folder / "copy"
        self._ended = Counter[str]()
        self._faults: dict[str, Result] = {}
        self._last = b""
        self._deadline = self._written = 0.0
        self._shrinking = False

    def run(self, seconds: float, seed: int) -> None:
        """Read damaged files for so long. For a fork."""
        shutil.copytree(self._reader.folder, self._copy)
        limit_memory(GIGABYTES)
        signal.signal(signal.SIGALRM, _stop)
        self._deadline, number = time.monotonic() + seconds, 0
        while time.monotonic() < self._deadline:
            self._shrinking = False
            try:
                self._round(seed + 10**6 * number)()
            except BaseException as error:
                self._record(error)
            number += 1
            self._write()

    def found(self) -> list[Result]:
        """What the fork had found when it last wrote it."""
        try:
            written = json.loads((self._folder / "found.json").read_text())
        except OSError:  # the first round was the last
            return []
        return [Result(**each) for each in written]

    def _write(self) -> None:
        self._written = time.monotonic()
        found = [
            Result(self.group, what, verdict, times=self._ended[verdict])
            for what, verdict in (("read", "equal"), ("refused", "noticed"))
        ]
        found += self._faults.values()
        with atomic_write(self._folder / "found.json") as file:
            file.write(json.dumps([asdict(each) for each in found]).encode())

    def _round(self, seed: int) -> Callable[[], None]:
        @hypothesis.seed(seed)
        @hypothesis.settings(
            max_examples=ROUND, deadline=None, database=None, report_multiple_bugs=False,
            suppress_health_check=list(hypothesis.HealthCheck),
        )  # fmt: skip
        @hypothesis.given(self._reader.damage(self._content))
        def read(content: bytes) -> None:
            self._read(content)

        return read

    def _read(self, content: bytes) -> None:
        """Raises what is new and no refusal in words."""
        enough = self._ended.total() >= LEAST and not self._shrinking
        if enough and time.monotonic() > self._deadline:
            return
        if time.monotonic() > self._written + 1:  # the next file may end this process
            self._write()
        path = self._copy / self._reader.path
        path.write_bytes(content)
        signal.alarm(SECONDS)
        try:
            self._reader.read(self._copy)
        except REFUSALS:
            self._ended["noticed"] += 1
        except BaseException as error:
            signal.alarm(0)
            if _place(error) not in self._faults:
                self._last, self._shrinking = content, True
                raise
        else:
            self._ended["equal"] += 1
        finally:
            signal.alarm(0)

    def _record(self, error: BaseException) -> None:
        """What Hypothesis has made as small as it can."""
        place = _place(error)
        number = len(self._faults)
        (self._folder / f"fault-{number}").write_bytes(self._last)
        verdict = "hang" if isinstance(error, Slow) else "traceback"
        detail = f"{type(error).__name__}: {str(error)[:200]!r} at {place}"
        what = f"fault-{number}: {self._last[:80]!r}"
        self._faults[place] = Result(self.group, what, verdict, detail)


def _is_there(reader: Reader) -> bool:
    return (reader.folder / reader.path).exists()


def _stop(*_: Any) -> None:
    raise Slow(f"longer than {SECONDS} s")


def _place(error: BaseException) -> str:
    """The innermost line of ours that was running."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "/harness/" in f.filename or "tokenizers/zoo_" in f.filename]
    own = [f for f in own if "/faults/" not in f.filename] or list(frames)
    where = own[-1]
    return f"{type(error).__name__} {Path(where.filename).name}:{where.lineno}"
