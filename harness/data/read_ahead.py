"""A lane that is read in a process of its own, one block ahead of who uses it."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from harness.common.errors import RunFailure, UsageError
from harness.common.interrupt import STOPPING
from harness.data.lane import Lane, Position, Rows

LOOK, LEAVE = 0.5, 5.0  # seconds: between looks at signals; for the process to end


class ReadAhead:
    """Reads blocks from that of this number on, which begins at `start`."""

    def __init__(self, lane: Lane, start: Position, number: int) -> None:
        # Not forked: a process that outlives this one would keep the lock of the run's folder.
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_read, args=(theirs, lane, start, number), daemon=True
        )
        # Signals are this process's: they stay blocked in the other, which leaves with it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {*STOPPING, signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    def next(self, check: Callable[[], object]) -> tuple[dict[str, Any], Rows]:
        """As of `Lane.blocks`. check: called while it is waited for; may raise."""
        try:
            while not self._ours.poll(LOOK):
                check()
            found: Exception | tuple[dict[str, Any], Rows] = self._ours.recv()
        except (EOFError, ConnectionError):
            self._process.join(LEAVE)
            raise RunFailure(
                f"data: the process that reads the shards died ({self._process.exitcode})"
            ) from None
        if isinstance(found, Exception):
            raise found
        return found

    def close(self) -> None:
        self._ours.close()
        self._process.join(LEAVE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _read(connection: Connection, lane: Lane, start: Position, number: int) -> None:
    with suppress(ConnectionError):  # the other process is gone, or wants no more
        try:
            for block in lane.blocks(start, number):
                connection.send(block)
        except (UsageError, RunFailure) as error:
            connection.send(error)
