"""The calls of this process that change files, watched: each is announced before it happens, and
can be forbidden, or a write cut short.

Only calls from Python are seen, at the level of system calls: files are written through `open`,
`os.write`, and a library's file objects. What C code opens by itself is not seen.
"""

from __future__ import annotations

import builtins
import io
import os
from collections.abc import Callable
from typing import Any

Announce = Callable[[str, int, int], int]
"""Called with a call's name, and for a write with the number of bytes and the file's descriptor;
returns how many of the bytes may be written. May raise OSError."""

CHANGES = (
    *("fsync", "replace", "rename", "unlink", "remove", "rmdir", "mkdir", "link", "symlink"),
    *("truncate", "ftruncate"),
)


def watch(announce: Announce) -> None:
    """From now on, announce each change. For a fork: there is no way back."""
    for name in CHANGES:
        _wrap(name, announce)
    plain_write = os.write

    def write(descriptor: int, data: Any) -> int:
        return plain_write(descriptor, memoryview(data)[: announce("write", len(data), descriptor)])

    class Raw(io.FileIO):
        def write(self, data: Any) -> int:
            view = memoryview(data).cast("B")
            return super().write(view[: announce("write", len(view), self.fileno())])

        def truncate(self, size: int | None = None) -> int:
            announce("truncate", 0, -1)
            return super().truncate(size)

    plain_open = io.open

    def opened(
        file: Any, mode: str = "r", buffering: int = -1, encoding: str | None = None,
        errors: str | None = None, newline: str | None = None, closefd: bool = True,
        opener: Any = None,
    ) -> Any:  # fmt: skip
        if not set(mode) & set("wax+"):
            return plain_open(file, mode, buffering, encoding, errors, newline, closefd, opener)
        announce("open", 0, -1)
        raw = Raw(file, mode.replace("b", "").replace("t", ""), closefd, opener)
        if buffering == 0:
            return raw
        buffer = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return buffer
        text = io.TextIOWrapper(buffer, encoding, errors, newline, line_buffering=buffering == 1)
        vars(text)["mode"] = mode
        return text

    vars(os)["write"] = write
    vars(io)["open"] = vars(builtins)["open"] = opened


def _wrap(name: str, announce: Announce) -> None:
    plain = getattr(os, name)

    def announced(*arguments: Any, **named: Any) -> Any:
        announce(name, 0, -1)
        return plain(*arguments, **named)

    setattr(os, name, announced)
