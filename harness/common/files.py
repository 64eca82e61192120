"""Files that are written whole or not at all, and file digests."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedRandom
from pathlib import Path
from time import time

from harness.common import contained
from harness.common.errors import RunFailure

# The disk's errors rather than the program's, whatever was written.
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
ABANDONED = 24 * 3600.0  # seconds after which a temporary file is nobody's, where locks don't work
MARK = ".zoo-"  # in the names of what is temporary: no name of the user's is taken for one


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Inside, `target` is written: an OSError is raised as a RunFailure that names it. One without
    an errno is not the disk's, and passes."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise RunFailure(f"{target} can't be written: {error.strerror}") from error


@contextmanager
def atomic_write(target: Path, inside: int = 1) -> Iterator[BufferedRandom]:
    """A temporary file that is renamed to `target` if the block succeeds, and removed if it fails.
    No reader ever sees a partial file. After the block the content and its name are on the disk.

    inside: how many of the last parts of the path may be no links (`harness.common.contained`). The
    temporary file is locked, so that `remove_leftovers` can tell one that is being written from
    one whose process was killed. Raises RunFailure if the disk is full or read-only.
    """
    with (
        writing(target),
        contained.folder(target.parent, inside - 1, make=True) as folder,
        _temporary(folder, target.name) as temporary,
    ):
        name = temporary.name
        try:
            yield temporary
            temporary.flush()
            os.fsync(temporary.fileno())
            os.fchmod(temporary.fileno(), 0o644)
            os.replace(name, target.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:  # which is the error to report, not what comes of it
            with suppress(OSError):
                temporary.close()
            with suppress(OSError):
                os.unlink(name, dir_fd=folder)
            raise
        with suppress(OSError):  # a file system that can't
            os.fsync(folder)  # so that the new name of a file is on the disk


def write_atomically(target: Path, content: bytes, inside: int = 1) -> None:
    """As `atomic_write`, of a content that is at hand."""
    with atomic_write(target, inside) as file:
        file.write(content)


def create_private(target: Path, content: bytes) -> None:
    """Write a file that its owner only may read, unless it is there: of several processes one wins.
    Raises RunFailure if it can't be written."""
    with (
        writing(target),
        contained.folder(target.parent, 0, make=True) as folder,
        _temporary(folder, target.name) as temporary,  # which nobody else may read
    ):
        try:
            temporary.write(content)
            temporary.flush()
            os.fsync(temporary.fileno())
            with suppress(FileExistsError):
                os.link(temporary.name, target.name, src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            os.unlink(temporary.name, dir_fd=folder)


class AppendedFile:
    """A file that grows by whole records. What a failed write left of a record is cut off again;
    what a kill left of one, whoever reads the file must expect.

    Raises RunFailure if the file can't be opened or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with writing(path):
            self._file = open(  # noqa: SIM115 - closed by `close`
                path, "ab", buffering=0, opener=contained.opener
            )

    def append(self, record: bytes) -> None:
        """Readers see it from here on."""
        before = os.fstat(self._file.fileno()).st_size
        with writing(self.path):
            try:
                rest = memoryview(record)
                while rest:
                    rest = rest[self._file.write(rest) :]
            except OSError:
                with suppress(OSError):
                    self._file.truncate(before)
                raise

    def status(self) -> os.stat_result:
        """Of the file that is open, whatever its path leads to by now."""
        return os.fstat(self._file.fileno())

    def close(self) -> None:
        """Nothing is left to be written."""
        self._file.close()


def remove_folder(path: Path) -> None:
    """Remove a folder and what lies in it, as far as that is possible. Nothing else: where a pipe
    has its place, shutil.rmtree would wait for ever."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)


def remove_leftovers(folder: Path, inside: int = 0) -> None:
    """Remove the temporary files that killed processes left in this folder. Those that are being
    written stay."""
    with suppress(OSError), contained.folder(folder, inside) as descriptor:  # none, or a link
        for name in os.listdir(descriptor):
            if re.fullmatch(rf"\..+{re.escape(MARK)}[0-9a-f]{{8}}", name):
                with suppress(OSError):  # gone meanwhile, or not ours
                    _remove_if_abandoned(name, descriptor)


def _remove_if_abandoned(name: str, folder: int) -> None:
    if not stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        return

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)

    with open(name, "r+b", opener=opener) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        except OSError:  # a file system without locks
            if time() - os.fstat(file.fileno()).st_mtime < ABANDONED:
                return
        os.unlink(name, dir_fd=folder)


@contextmanager
def _temporary(folder: int, target: str) -> Iterator[BufferedRandom]:
    """A new file in a folder, locked."""

    def create(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NOFOLLOW, 0o600, dir_fd=folder)

    while True:
        name = f".{target}{MARK}{secrets.token_hex(4)}"
        with open(name, "x+b", opener=create) as file:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            if _is_linked(file):
                yield file
                return
        # It was taken for a leftover before it was locked.


def _is_linked(file: BufferedRandom) -> bool:
    return os.fstat(file.fileno()).st_nlink > 0
