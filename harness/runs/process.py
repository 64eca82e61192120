"""process.json: the process that trains a run, so that the run can be watched and stopped. It is
written by the lock of the folder (`harness.runs.lock`).

A process is identified by its id, its start time, and the system that gave the id: ids are used
again, and the same id in another container or on another machine is another process. Without /proc
there are no start times, and no process is ever known to train a run; one may be known to be dead.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

from harness.common import contained
from harness.common.errors import UsageError

FILE = "process.json"
MOST_BYTES = 4096


def own(inode: int) -> dict[str, Any]:
    """This process, as the file with that inode names it."""
    pid = os.getpid()
    return {"pid": pid, "began": _start_time(pid), "system": _system(), "inode": inode}


def described(found: dict[str, Any] | None) -> str:
    """A process in words."""
    words = [str((found or {}).get(name, "?"))[:80] for name in ("pid", "host", "since")]
    pid, host, since = ("".join(c if c.isprintable() else "?" for c in word) for word in words)
    return f"process {pid} on {host}, since {since}"


def is_of_this_system(found: dict[str, Any]) -> bool:
    """Whether its id can be looked up here."""
    return bool(found.get("began")) and found.get("system") == _system() is not None


def is_gone(found: dict[str, Any]) -> bool:
    """Without /proc: whether a process of a machine of this name is surely dead. An id that is in
    use may be another process's by now."""
    if _system() or found.get("system") or found.get("host") != socket.gethostname():
        return False
    try:
        os.kill(found["pid"], 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        pass
    return False


def lives(found: dict[str, Any]) -> bool:
    """Of a process of this system."""
    return _start_time(found["pid"]) == found["began"]


def is_alive(folder: Path) -> bool | None:
    """Whether the process that trains the run is alive; None if that can't be known here."""
    found = read(folder)
    return lives(found) if found is not None and is_of_this_system(found) else None


def stop(folder: Path) -> None:
    """Send SIGTERM to the run's process: it saves and exits.

    Raises UsageError if no living process is known to train the run.
    """
    unknown = UsageError(f"{folder}: no process of this machine is known to train it")
    found = read(folder)
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


def read(folder: Path) -> dict[str, Any] | None:
    """The process that the folder names; None if the file is missing or damaged, or a copy."""
    try:
        with contained.open_binary(folder / FILE) as file:
            found, inode = json.loads(file.read(MOST_BYTES)), os.fstat(file.fileno()).st_ino
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("pid"), int):
        return None
    return found if found.get("inode", inode) == inode else None


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
