"""process.json is also the lock of a run's folder: one training at a time.

flock tells the processes of one machine apart, and of all machines where the file system has it;
the kernel releases it when its process ends. What is written in the file counts where flock fails,
or knows one machine alone. It names the process, and the file's own inode: that of a copied folder
is another, so the copy is nobody's. Nobody can ask a process of another machine whether it lives:
it touches the file every BEAT seconds, and who wants the lock watches for WATCH seconds.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from harness.common import contained
from harness.common.errors import RunFailure, UsageError
from harness.runs import process

BEAT, WATCH, LOOK = 5.0, 20.0, 1.0  # seconds


class FolderLost(RunFailure):
    """The folder of a training, or its metrics.jsonl, was moved, removed or replaced under it."""


class FolderInUse(UsageError):
    """Another process trains in the folder."""


class Lock:
    """The lock of a folder, held by this process: open, with `content` in it."""

    def __init__(self, folder: Path, descriptor: int, content: bytes) -> None:
        self._folder, self._descriptor, self._content = folder, descriptor, content
        self._taken = False

    def require(self) -> None:
        """Raises FolderLost unless the folder is still where it was, and this process's."""
        if self._taken:
            holder = process.described(process.read(self._folder))
            raise FolderLost(f"{self._folder} was taken over by another training ({holder})")
        if not self._is_at(self._folder):
            place = self.place()
            raise FolderLost(
                f"{self._folder} was moved to {place} while it was trained"
                if place
                else f"{self._folder} is no longer the folder that was trained in: it or its "
                f"{process.FILE} was removed or replaced"
            )

    def place(self) -> Path | None:
        """Where the folder is now; None if it is gone, taken, or can't be found on this system."""
        if self._taken:
            return None
        if self._is_at(self._folder):
            return self._folder
        try:
            found = _path_of(self._descriptor)
        except OSError:
            return None
        return found.parent if found.name == process.FILE and self._is_at(found.parent) else None

    def follow(self) -> Path | None:
        """From now on the lock is that of `place`, which it returns."""
        place = self.place()
        self._folder = place or self._folder
        return place

    def beat(self) -> None:
        """Show that this process lives; and see whether another one, that thought otherwise, has
        written itself into the file."""
        self._taken = os.pread(self._descriptor, 4096, 0) != self._content
        if not self._taken:
            os.utime(self._descriptor)

    def beat_until(self, ended: threading.Event) -> None:
        while not ended.wait(BEAT):
            with suppress(OSError):
                self.beat()

    def release(self) -> None:
        with suppress(OSError):
            self.beat()
            if (place := self.place()) is not None:
                contained.unlink(place / process.FILE)
        os.close(self._descriptor)

    def _is_at(self, folder: Path) -> bool:
        return _leads_to(folder / process.FILE, self._descriptor)


@contextmanager
def hold(folder: Path) -> Iterator[Lock]:
    """Inside, the folder is this process's. Raises FolderInUse, naming the process that has it."""
    lock, ended = _take(folder), threading.Event()
    thread = threading.Thread(target=lock.beat_until, args=(ended,), daemon=True)
    thread.start()
    try:
        yield lock
    finally:
        ended.set()
        thread.join()
        lock.release()


def _take(folder: Path) -> Lock:
    """Locked as far as this file system can lock."""
    path = folder / process.FILE
    while True:
        try:
            descriptor = contained.opener(str(path), os.O_RDWR | os.O_CREAT)
            _lock(path, descriptor)
            if _leads_to(path, descriptor):
                own = process.own(os.fstat(descriptor).st_ino)
                content = json.dumps(own | {"host": socket.gethostname(), "since": _now()}).encode()
                os.pwrite(descriptor, content, 0)
                os.ftruncate(descriptor, len(content))
                return Lock(folder, descriptor, content)
        except OSError as error:
            raise RunFailure(f"{path} can't be written: {error.strerror}") from error
        os.close(descriptor)  # its holder has just removed it


def _lock(path: Path, descriptor: int) -> None:
    """Raises FolderInUse, the file closed, if another process has it."""
    holder = process.read(path.parent)
    here = holder is not None and process.is_of_this_system(holder)
    gone = holder is None or process.is_gone(holder)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lives = not gone and not here and _beats(path)
    except BlockingIOError:
        lives = True
    except OSError:  # a file system without locks
        lives = not gone and (process.lives(holder) if holder and here else _beats(path))
    if lives:
        os.close(descriptor)
        raise FolderInUse(
            f"{path.parent} is in use: another process trains there ({process.described(holder)})"
        )
    if holder is not None:
        print(
            f"{path.parent} is taken over from {process.described(holder)}, which is gone",
            file=sys.stderr,
        )


def _beats(path: Path) -> bool:
    """Whether the file is touched while this process watches it."""
    before, until = _touched(path), time.monotonic() + WATCH
    print(f"{path.parent}: is it in use on another machine? (up to {WATCH:g} s)", file=sys.stderr)
    while time.monotonic() < until:
        time.sleep(LOOK)
        if _touched(path) != before:
            return True
    return False


def _touched(path: Path) -> tuple[int, int] | None:
    """Opened, because network file systems ask their server only then."""
    try:
        with contained.open_binary(path) as file:
            found = os.fstat(file.fileno())
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _path_of(descriptor: int) -> Path:
    """Where an open file is now. Raises OSError where the system can't tell."""
    if sys.platform == "darwin":
        return Path(
            os.fsdecode(fcntl.fcntl(descriptor, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0"))
        )
    return Path(os.readlink(f"/proc/self/fd/{descriptor}"))


def _leads_to(path: Path, descriptor: int) -> bool:
    """Whether the path is that of the open file."""
    try:
        found = os.stat(path, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # a network that hesitates: the write itself will tell
        return True
    return os.path.samestat(found, os.fstat(descriptor))


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
