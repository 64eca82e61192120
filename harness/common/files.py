"""Atomic file writes, and file digests."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from harness.common.errors import RunFailure


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def atomic_write(target: Path) -> Iterator[tempfile._TemporaryFileWrapper[bytes]]:
    """A temporary file that is renamed to `target` if the block succeeds, and removed if it fails.
    No reader ever sees a partial file.

    Raises RunFailure if the disk is full or read-only.
    """
    temporary = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.NamedTemporaryFile(  # noqa: SIM115 - closed and renamed below
            dir=target.parent, prefix=f".{target.name}.", delete=False
        )
        yield temporary
        temporary.flush()
        os.fsync(temporary.fileno())
        temporary.close()
        os.chmod(temporary.name, 0o644)
        os.replace(temporary.name, target)
        temporary = None
    except OSError as error:
        if error.errno is None:
            raise
        raise RunFailure(f"{target} can't be written: {error.strerror}") from error
    finally:
        if temporary is not None:
            with suppress(OSError):  # flushing to a full disk
                temporary.close()
            Path(temporary.name).unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that killed processes left in this folder. Nobody else may be
    writing to it."""
    for path in folder.glob(".*"):
        if re.fullmatch(r"\..+\.[a-z0-9_]{8}", path.name) and path.is_file():
            path.unlink()
