"""A lane that is read in a process of its own, one block ahead of who uses it."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
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
        ours, theirs = os.pipe()
        # Signals are this process's: they stay blocked in the other, which leaves with it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {*STOPPING, signal.SIGINT})
        try:
            # Not forked: it would keep what this one has open, such as the lock of the run's
            # folder. Not of multiprocessing: whose daemons, as a sweep's, may have no children.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "harness.data.read_ahead", str(theirs)],
                stdin=subprocess.PIPE, pass_fds=(theirs,),
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )  # fmt: skip
        except OSError as error:
            raise RunFailure(f"data: no process to read the shards can be started: {error}") from (
                error
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(theirs)
        self._blocks = Connection(ours, writable=False)
        assert self._process.stdin is not None
        with suppress(OSError), self._process.stdin as pipe:  # `next` tells that it has died
            pickle.dump((lane, start, number), pipe)

    def next(self, check: Callable[[], object]) -> tuple[dict[str, Any], Rows]:
        """As of `Lane.blocks`. check: called while it is waited for; may raise."""
        try:
            while not self._blocks.poll(LOOK):
                check()
            found: Exception | tuple[dict[str, Any], Rows] = self._blocks.recv()
        except (EOFError, OSError):
            code = self._process.wait()
            raise RunFailure(f"data: the process that reads the shards died ({code})") from None
        if isinstance(found, Exception):
            raise found
        return found

    def close(self) -> None:
        self._blocks.close()
        try:
            self._process.wait(LEAVE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def main() -> None:
    lane, start, number = pickle.load(sys.stdin.buffer)
    blocks = Connection(int(sys.argv[1]), readable=False)
    with suppress(ConnectionError):  # the other process is gone, or wants no more
        try:
            for block in lane.blocks(start, number):
                blocks.send(block)
        except (UsageError, RunFailure) as error:
            blocks.send(error)


if __name__ == "__main__":
    main()
