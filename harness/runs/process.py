"""Which process trains a run: said in the run's folder, so that it can be watched and stopped.

A process is told by its number, by when it began, and by the system that numbered it: a number
alone is given again once its process has ended, and in another container or on another machine it
is another process's. Where the system tells no beginnings (it has no /proc), nobody can be proven
to be the run.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from harness.common.errors import UsageError
from harness.common.files import atomic_write

FILE = "process.json"


@contextmanager
def signed(folder: Path) -> Iterator[None]:
    """Says in the run's folder that this process trains it, while the block runs."""
    path = folder / FILE
    mine = {"pid": os.getpid(), "began": _began(os.getpid()), "system": _system()}
    with atomic_write(path) as file:
        file.write(json.dumps(mine).encode())
    try:
        yield
    finally:
        # Unless another process goes on with the run by now. Left behind, the file proves nothing.
        if _read(folder) == mine:
            with suppress(OSError):
                path.unlink()


def is_alive(folder: Path) -> bool | None:
    """Whether the process that trains the run still lives; None if that can't be known here."""
    said = _read(folder)
    if said is None or not said.get("began") or said.get("system") != _system():
        return None
    return _began(said["pid"]) == said["began"]


def stop(folder: Path) -> None:
    """Asks the run's process to save and leave (SIGTERM).

    Raises UsageError if no living process can be proven to train the run.
    """
    unproven = UsageError(f"{folder}: no process of this machine is known to train it")
    said = _read(folder)
    if said is None or not is_alive(folder):
        raise unproven
    try:
        # A handle stays with its process: proven after it was opened, it can't be another's.
        handle = os.pidfd_open(said["pid"])
    except OSError:
        raise unproven from None
    try:
        if not is_alive(folder):
            raise unproven
        signal.pidfd_send_signal(handle, signal.SIGTERM)
    except OSError as error:
        raise UsageError(f"{folder} can't be stopped: {error.strerror}") from error
    finally:
        os.close(handle)


def _read(folder: Path) -> dict[str, Any] | None:
    try:
        said = json.loads((folder / FILE).read_text())
    except (OSError, ValueError):
        return None
    return said if isinstance(said, dict) and isinstance(said.get("pid"), int) else None


def _began(pid: int) -> str | None:
    """When a process began, in clock ticks since the system did; None if it is not there."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name, in parentheses, may hold anything; after it the state is field 3, the start 22.
    fields = status.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


def _system() -> str | None:
    """Of whom process numbers are: this boot of this machine, and this container of it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None
