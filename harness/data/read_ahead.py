"""A lane that is read in a process of its own, one block ahead of who uses it."""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from harness.common.errors import RunFailure, UsageError
from harness.data.child import Child, in_child
from harness.data.lane import Lane, Position, Rows

LOOK = 0.5  # seconds between looks at signals


class ReadAhead:
    """Reads blocks from that of this number on, which begins at `start`."""

    def __init__(self, lane: Lane, start: Position, number: int) -> None:
        self._child = Child("harness.data.read_ahead", (lane, start, number))

    def next(self, check: Callable[[], object]) -> tuple[dict[str, Any], Rows]:
        """As of `Lane.blocks`. check: called while it is waited for; may raise."""
        while not self._child.connection.poll(LOOK):
            check()
        found: tuple[dict[str, Any], Rows] = self._child.receive()
        return found

    def close(self) -> None:
        self._child.close()


def _read(connection: Connection) -> None:
    lane, start, number = connection.recv()
    try:
        for block in lane.blocks(start, number):
            connection.send(block)
    except (UsageError, RunFailure) as error:
        connection.send(error)


if __name__ == "__main__":
    in_child(_read)
