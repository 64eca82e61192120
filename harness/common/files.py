"""Files that are written whole or not at all, and file digests."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import time

from harness.common.errors import RunFailure

# The disk's errors rather than the program's, whatever was written.
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
ABANDONED = 24 * 3600.0  # seconds after which a temporary file is nobody's, where locks don't work


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_tail(path: Path, size: int) -> bytes:
    """The whole lines in the last `size` bytes of a file; empty if it can't be read.

    The rest of a line that was cut is left out: it could pose as another line.
    """
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            start = file.seek(max(0, end - size))
            content = file.read(end - start)
    except OSError:
        return b""
    return content.partition(b"\n")[2] if start else content


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
def atomic_write(target: Path) -> Iterator[tempfile._TemporaryFileWrapper[bytes]]:
    """A temporary file that is renamed to `target` if the block succeeds, and removed if it fails.
    No reader ever sees a partial file. After the block the content and its name are on the disk.

    The temporary file is locked, so that `remove_leftovers` can tell one that is being written from
    one whose process was killed. Raises RunFailure if the disk is full or read-only.
    """
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked_temporary(target) as temporary:
            try:
                yield temporary
                temporary.flush()
                os.fsync(temporary.fileno())
                os.chmod(temporary.name, 0o644)
                os.replace(temporary.name, target)
            except BaseException:  # which is the error to report, not what comes of it
                with suppress(OSError):
                    temporary.close()
                with suppress(OSError):
                    os.unlink(temporary.name)
                raise
        _sync_folder(target.parent)


def write_atomically(target: Path, content: bytes) -> None:
    """As `atomic_write`, of a content that is at hand."""
    with atomic_write(target) as file:
        file.write(content)


class AppendedFile:
    """A file that grows by whole records. What a failed write left of a record is cut off again;
    what a kill left of one, whoever reads the file must expect.

    Raises RunFailure if the file can't be opened or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with writing(path):
            self._file = path.open("ab", buffering=0)

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

    def close(self) -> None:
        """Nothing is left to be written."""
        self._file.close()


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that killed processes left in this folder. Those that are being
    written stay."""
    for path in folder.glob(".*"):
        if re.fullmatch(r"\..+\.[a-z0-9_]{8}", path.name):
            with suppress(OSError):  # gone meanwhile, or not ours
                _remove_if_abandoned(path)


def _remove_if_abandoned(path: Path) -> None:
    if not stat.S_ISREG(path.lstat().st_mode):
        return
    with path.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        except OSError:  # a file system without locks
            if time() - os.fstat(file.fileno()).st_mtime < ABANDONED:
                return
        path.unlink()


def _locked_temporary(target: Path) -> tempfile._TemporaryFileWrapper[bytes]:
    while True:
        temporary = tempfile.NamedTemporaryFile(  # noqa: SIM115 - the caller closes it
            dir=target.parent, prefix=f".{target.name}.", delete=False
        )
        with suppress(OSError):  # a file system without locks
            fcntl.flock(temporary, fcntl.LOCK_EX)
        if os.path.exists(temporary.name):
            return temporary
        temporary.close()  # taken for a leftover before it was locked


def _sync_folder(folder: Path) -> None:
    """So that the new name of a file is on the disk."""
    with suppress(OSError):  # a file system that can't
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
