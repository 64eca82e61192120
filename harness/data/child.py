"""A process of this one's own that computes beside it."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from harness.common.errors import RunFailure
from harness.common.interrupt import STOPPING

LEAVE = 5.0  # seconds for the process to end


class Child:
    """Runs a module, which gets a `connection` by `in_child`, and ends when that is closed. given:
    the first that it receives. Raises RunFailure if no process can be started."""

    def __init__(self, module: str, given: Any) -> None:
        ours, theirs = socket.socketpair()
        # Signals are this process's: they stay blocked in the other, which leaves with it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {*STOPPING, signal.SIGINT})
        try:
            # Not forked: it would keep what this one has open, such as the lock of the run's
            # folder. Not of multiprocessing: whose daemons, as a sweep's, may have no children.
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, str(theirs.fileno())],
                stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(),),
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )  # fmt: skip
        except OSError as error:
            raise RunFailure(f"data: no process to read the shards can be started: {error}") from (
                error
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
        self.connection = Connection(ours.detach())
        with suppress(OSError):  # as in `send`
            # Not by `send`: torch would share the memory of tensors, with its own children alone.
            self.connection.send_bytes(pickle.dumps(given))

    def send(self, given: Any) -> None:
        with suppress(OSError):  # `receive` tells that it has died
            self.connection.send(given)

    def receive(self) -> Any:
        """What it sends. Raises that if it is an error, and RunFailure if the process is dead."""
        try:
            found = self.connection.recv()
        except (EOFError, OSError):
            code = self.process.wait()
            raise RunFailure(f"data: the process that reads the shards died ({code})") from None
        if isinstance(found, Exception):
            raise found
        return found

    def close(self, leave: float = LEAVE) -> None:
        """leave: seconds that it has to end by itself."""
        self.connection.close()
        try:
            self.process.wait(leave)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def in_child(work: Callable[[Connection], None]) -> None:
    """The main function of a module that a `Child` runs."""
    with suppress(ConnectionError, EOFError):  # the other process is gone, or wants no more
        work(Connection(int(sys.argv[1])))
