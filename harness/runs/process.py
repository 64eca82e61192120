"""process.json: the process that trains a run, so that the run can be watched and stopped.

A process is identified by its id, its start time, and the system that gave the id: ids are used
again, and the same id in another container or on another machine is another process. Without /proc
there are no start times, and no process is ever known to train a run.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from harness.common import contained
from harness.common.errors import UsageError
from harness.common.files import atomic_write

FILE = "process.json"


@contextmanager
def process_file(folder: Path) -> Iterator[None]:
    """While the block runs, the run's folder names this process as the one that trains it."""
    path = folder / FILE
    own = {"pid": os.getpid(), "began": _start_time(os.getpid()), "system": _system()}
    with atomic_write(path) as file:
        file.write(json.dumps(own).encode())
    try:
        yield
    finally:
        # Another process may have resumed the run by now. A file left behind proves nothing.
        if _read(folder) == own:
            with suppress(OSError):
                contained.unlink(path)


def is_alive(folder: Path) -> bool | None:
    """Whether the process that trains the run is alive; None if that can't be known here."""
    found = _read(folder)
    if found is None or not found.get("began") or found.get("system") != _system():
        return None
    return _start_time(found["pid"]) == found["began"]


def stop(folder: Path) -> None:
    """Send SIGTERM to the run's process: it saves and exits.

    Raises UsageError if no living process is known to train the run.
    """
    unknown = UsageError(f"{folder}: no process of this machine is known to train it")
    found = _read(folder)
    if found is None or not is_alive(folder):
        raise unknown
    try:
        # A pidfd refers to one process: checked again once it is open, it can't be another one.
        pidfd = os.pidfd_open(found["pid"])
    except OSError:
        raise unknown from None
    try:
        if not is_alive(folder):
            raise unknown
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
    except OSError as error:
        raise UsageError(f"{folder} can't be stopped: {error.strerror}") from error
    finally:
        os.close(pidfd)


def _read(folder: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(contained.read(folder / FILE))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("pid"), int) else None


def _start_time(pid: int) -> str | None:
    """In clock ticks since boot; None if there is no such process."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # Field 2, the name in parentheses, may hold anything. Field 3 is the state, 22 the start time.
    fields = status.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


def _system() -> str | None:
    """This boot of this machine, and this container: process ids are unique within it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None
