"""Files of a run's folder, which may come from a stranger.

They are opened relative to the descriptor of the folder. Only regular files are opened, no link is
followed, and what is read has a limit. The path that leads to the folder may hold links.

`inside` says how many of the last parts of a path lie in the run's folder: 1 for RUN/summary.json,
2 for RUN/checkpoints/best-00000500.pt.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from io import BufferedReader
from pathlib import Path

from harness.common.errors import UsageError

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
# The most bytes that are read of a file: by its name, the end of its name, or its folder.
LIMITS = {
    "config.yaml": 64 * KIB,
    "summary.json": 4 * MIB,
    "metrics.jsonl": GIB,
    "samples.txt": 16 * MIB,
    "test_nats.json": MIB,
    "certificate.json": MIB,
    "train_counts.npy": 64 * MIB,
    "calibration.html": 32 * MIB,
    "inside.png": 16 * MIB,
    ".f32": 4 * GIB,
    ".pt": max(16 * GIB, MEMORY),  # what is larger can't be loaded
    "tokenizer": 64 * MIB,
}
OTHERS = 64 * KIB
LINE = 8 * MIB  # the longest line of metrics.jsonl
FACTOR = "ZOO_LIMITS"

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_KINDS = {
    stat.S_IFLNK: "a link, which is not followed in a run's folder: put the file itself there",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


class UnsafeFile(OSError):
    """A file that is neither read nor written. `strerror` says why and what to do."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(errno.EPERM, why, str(path))

    def __str__(self) -> str:
        return f"{Path(self.filename).name} is {self.strerror}"


def limit(path: Path) -> int:
    """The most bytes that are read of this file. Raises UsageError for a wrong $ZOO_LIMITS."""
    keys = (path.name, path.suffix, path.parent.name)
    return int(factor() * next((LIMITS[key] for key in keys if key in LIMITS), OTHERS))


def factor() -> float:
    """$ZOO_LIMITS, by which the user multiplies every limit. Not a setting: a folder could set it.

    Raises UsageError if it is no number above 0.
    """
    text = os.environ.get(FACTOR, "1")
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < 1e9:
        raise UsageError(f"{FACTOR}={text} should be a number, by which limits are multiplied")
    return value


@contextmanager
def folder(path: Path, inside: int = 0, make: bool = False) -> Iterator[int]:
    """The descriptor of a folder. make: if it is not there. Raises OSError; UnsafeFile for a link
    among the last `inside` parts."""
    parts = path.parts
    outer, inner = Path(*parts[: len(parts) - inside]), parts[len(parts) - inside :]
    if make:
        outer.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(outer, _FOLDER)
    try:
        for name in inner:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(name, dir_fd=descriptor)
            _require(stat.S_IFDIR, path, os.stat(name, dir_fd=descriptor, follow_symlinks=False))
            below = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)


def opener(path: str, flags: int, inside: int = 1, whole: bool = True) -> int:
    """For `open(path, mode, opener=opener)`. whole: all of the file may be read.

    Raises OSError; UnsafeFile for what is not a regular file, is too large to read, or has a second
    name that a write would change, too.
    """
    where = Path(path)
    with folder(where.parent, inside - 1) as parent:
        try:
            _require(stat.S_IFREG, where, os.stat(where.name, dir_fd=parent, follow_symlinks=False))
        except FileNotFoundError:
            if not flags & os.O_CREAT:
                raise
        # A pipe that has just taken the file's place must not block.
        safe = flags & ~os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(where.name, safe, 0o644, dir_fd=parent)
    try:
        status = os.fstat(descriptor)
        _require(stat.S_IFREG, where, status)
        if not flags & (os.O_WRONLY | os.O_RDWR):
            _require_size(where, status.st_size if whole else 0)
        elif status.st_nlink > 1:
            raise UnsafeFile(
                where, "a hard link: a write would change its other names; put a copy there"
            )
        if flags & os.O_TRUNC:
            os.ftruncate(descriptor, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def open_binary(path: Path, inside: int = 1, whole: bool = True) -> BufferedReader:
    """The file, to be read. Errors as in `opener`."""
    return open(path, "rb", opener=partial(opener, inside=inside, whole=whole))


def read(path: Path, inside: int = 1) -> bytes:
    """All of a file. Errors as in `opener`."""
    with open_binary(path, inside) as file:
        content = file.read(limit(path) + 1)
    _require_size(path, len(content))  # it may have grown
    return content


def read_text(path: Path, inside: int = 1) -> str:
    """What is not UTF-8 becomes �. Errors as in `opener`."""
    return read(path, inside).decode("utf-8", "replace")


def read_tail(path: Path, size: int) -> bytes:
    """The whole lines in the last `size` bytes of a file; empty if it can't be read.

    The rest of a line that was cut is left out: it could pose as another line.
    """
    try:
        with open_binary(path, whole=False) as file:
            end = file.seek(0, os.SEEK_END)
            start = file.seek(max(0, end - size))
            content = file.read(end - start)
    except OSError:
        return b""
    return content.partition(b"\n")[2] if start else content


def names(path: Path, inside: int = 1) -> list[str]:
    """The names in a folder; none if there is no such folder. Raises OSError."""
    try:
        with folder(path, inside) as descriptor:
            return sorted(os.listdir(descriptor))
    except FileNotFoundError:
        return []


def unlink(path: Path, inside: int = 1) -> None:
    """Remove a file, if it is there. Raises OSError."""
    with folder(path.parent, inside - 1) as parent, suppress(FileNotFoundError):
        os.unlink(path.name, dir_fd=parent)


def too_large(path: Path, what: str) -> UnsafeFile:
    """The error for a file that holds more than is read of it."""
    return UnsafeFile(path, f"too large: {what}; if you trust it, multiply all limits: {FACTOR}=10")


def _require(kind: int, path: Path, status: os.stat_result) -> None:
    found = stat.S_IFMT(status.st_mode)
    if found != kind:
        raise UnsafeFile(path, _KINDS.get(found, "no regular file"))


def _require_size(path: Path, size: int) -> None:
    if size > limit(path):
        raise too_large(path, f"more than {limit(path):,} bytes")
