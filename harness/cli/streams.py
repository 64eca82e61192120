"""The standard streams of a command. Where one is closed, or its reader goes away, messages are
lost and nothing else is."""

from __future__ import annotations

import errno
import io
import os
import select
import stat
import sys
from typing import Any, BinaryIO, cast

from harness.common.errors import RunFailure


def prepare_streams() -> None:
    """Open the streams that were closed when the process started (`… <&- 2>&-`): else files that
    are opened later get their numbers, and with them what is meant for a terminal. Errors of stderr
    are passed over, those of stdout are raised as `_Results` says."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # It gets the lowest number that is free: those below are open by now.
            os.open(os.devnull, os.O_WRONLY if number else os.O_RDONLY)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115
    sys.stdout = _wrapped(sys.stdout, 1, _Results)
    sys.stderr = _wrapped(sys.stderr, 2, _Messages)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # "?" for what the terminal lacks
            stream.reconfigure(errors="replace")


def finish_output() -> None:
    """Write what is left for stdout; what can't be written goes nowhere. Else Python would try, and
    complain, as it ends."""
    try:
        sys.stdout.flush()
    except (OSError, RunFailure):
        if (number := _number(sys.stdout)) is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)


class _Whole(io.FileIO):
    """Writes all of it, also where it must wait (a pipe that does not block, which is full)."""

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        while rest:
            written = super().write(rest)
            if written is None:
                select.select([], [self], [])
            else:
                rest = rest[written:]
        return memoryview(data).nbytes


class _Results(_Whole):
    """stdout. Raises BrokenPipeError if nobody reads it, and RunFailure if it is a file on a disk
    that is full."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            # A terminal that was closed, which does not say any more that it is one.
            if error.errno == errno.EIO and stat.S_ISCHR(os.fstat(self.fileno()).st_mode):
                raise BrokenPipeError(errno.EPIPE, "the terminal was closed") from error
            raise RunFailure(f"standard output can't be written: {error.strerror}") from error


class _Messages(_Whole):
    """stderr. What can't be written is lost."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def _wrapped(stream: Any, number: int, kind: type[io.FileIO]) -> Any:
    """The stream, through a file of this kind; a stream of its own, as tests have, stays."""
    if not isinstance(stream, io.TextIOWrapper) or _number(stream) != number:
        return stream
    if isinstance(getattr(stream.buffer, "raw", stream.buffer), kind):
        return stream
    stream.flush()
    raw = kind(number, "w", closefd=False)
    unbuffered = isinstance(stream.buffer, io.RawIOBase)  # python -u
    return io.TextIOWrapper(
        cast(BinaryIO, raw if unbuffered else io.BufferedWriter(raw)),
        stream.encoding,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _number(stream: Any) -> int | None:
    try:
        return int(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return None
