"""Files that the user names: a text, a prompt, a file to compress. No byte of theirs is changed."""

from __future__ import annotations

import os
import stat
from io import BufferedReader
from pathlib import Path

from harness.common.errors import UsageError

MOST = 1 << 26  # bytes of a pipe, which may never end


def open_regular(path: Path, key: str = "", *, or_pipe: bool = False) -> BufferedReader:
    """The file, to be read. key: what begins a message, `data.path=`.

    Raises UsageError if it can't be read, and for what is no regular file: it can't be read twice,
    may never end, or waits for someone. or_pipe: a pipe will do.
    """
    try:
        # A pipe that nobody writes to must not block.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.set_blocking(descriptor, True)
        kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
        if kind == stat.S_IFREG or (or_pipe and kind == stat.S_IFIFO):
            return os.fdopen(descriptor, "rb")
        os.close(descriptor)
    except (OSError, ValueError) as error:  # ValueError: a NUL character
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{key}{path} can't be read: {reason}") from error
    if kind == stat.S_IFDIR:
        raise UsageError(f"{key}{path} can't be read: Is a directory")
    raise UsageError(
        f"{key}{path} is a pipe or a device, not a file: save what it holds in a file first"
    )


def read_text(path: Path, key: str) -> str:
    """All of a file, or of a pipe up to its end. Bytes that are not UTF-8 become lone surrogates.
    Errors as in `open_regular`."""
    with open_regular(path, key, or_pipe=True) as file:
        content = file.read() if file.seekable() else file.read(MOST + 1)
        if not file.seekable() and len(content) > MOST:
            raise UsageError(f"{key}{path} does not end: more than {MOST:,} bytes came")
    return content.decode("utf-8", "surrogateescape")
