"""The open connections of the page's server: how many, how long each may take, and how much it may
send. 2,000 idle or slow clients must cost no more than a few, and lock nobody out."""

from __future__ import annotations

import io
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from time import monotonic
from typing import Any

MOST_CONNECTIONS = 128
DESCRIPTOR_SHARE = 4  # one in so many of those that the process may have
MOST_SENDING = 16  # answers on their way at once
UNREAD_BYTES = 1 << 17  # that the system keeps of an answer that is not taken; else megabytes
MOST_REQUEST = 1 << 16  # bytes of a request, its headers included
IDLE_SECONDS = 60.0  # until a request begins
REQUEST_SECONDS = 10.0  # from its first byte to its last
ANSWER_SECONDS = 30.0  # for the client to take the answer
LINGER_SECONDS = 1.0


@dataclass(eq=False)
class Connection:
    """since: when the server began to wait for this client; None while the client waits for the
    server."""

    socket: socket.socket
    since: float | None
    sending: bool = False
    leaving: bool = False

    def hang_up(self) -> None:
        """Its thread, which waits for it, sees the end and closes it."""
        self.leaving = True
        with suppress(OSError):  # the client was faster
            self.socket.shutdown(socket.SHUT_RDWR)


class Connections:
    """At most `most` of them. For another one, the client that has kept the server waiting longest
    is hung up on; a browser then connects again, unseen. Thread-safe."""

    def __init__(self) -> None:
        allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        unlimited = allowed == resource.RLIM_INFINITY
        self.most = MOST_CONNECTIONS
        if not unlimited:
            self.most = max(1, min(self.most, allowed // DESCRIPTOR_SHARE))
        self._open: dict[socket.socket, Connection] = {}
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._open)

    def make_room(self) -> None:
        """Returns once there is room for one more."""
        with self._changed:
            while len(self._open) >= self.most:
                if not any(each.leaving for each in self._open.values()):
                    # Several at once, so that not every client of many waits for a thread's end.
                    self._hang_up_on_longest(list(self._open.values()), 1 + self.most // 8)
                self._changed.wait(1.0)

    def add(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNREAD_BYTES)
        with self._changed:
            self._open[connection] = Connection(connection, monotonic())

    def remove(self, connection: socket.socket) -> None:
        with self._changed:
            self._open.pop(connection, None)
            self._changed.notify_all()

    def wait_for(self, connection: socket.socket) -> None:
        """From now on the server waits for this client's request."""
        self._open[connection].since = monotonic()

    @contextmanager
    def working(self, connection: socket.socket) -> Iterator[None]:
        """While the block runs, this client waits for the server, and is not hung up on."""
        with self._changed:
            self._open[connection].since = None
        try:
            yield
        finally:
            self._open[connection].since = monotonic()

    @contextmanager
    def sending(self, connection: socket.socket) -> Iterator[None]:
        """While the block runs, an answer is held in memory for this client. Beyond MOST_SENDING
        of them the slowest reader is hung up on."""
        own = self._open[connection]
        with self._changed:
            readers = [each for each in self._open.values() if each.sending and not each.leaving]
            if len(readers) >= MOST_SENDING:
                self._hang_up_on_longest(readers, 1)
            own.since, own.sending = monotonic(), True
        try:
            yield
        finally:
            own.sending = False

    @staticmethod
    def _hang_up_on_longest(among: list[Connection], count: int) -> None:
        waiting = [each for each in among if each.since is not None]
        for each in sorted(waiting, key=lambda each: each.since or 0.0)[:count]:
            each.hang_up()


class TooLarge(HTTPException):
    """A request of more than MOST_REQUEST bytes."""


class RequestReader(io.RawIOBase):
    """Reads what a client sends. Raises TimeoutError and TooLarge.

    The limits are for the whole request, not for the next byte: however steadily a slow client
    sends, it holds a thread no longer than that.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.begin()

    def begin(self) -> None:
        """A new request may come."""
        self._until = monotonic() + IDLE_SECONDS
        self._size = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connection.settimeout(max(0.001, self._until - monotonic()))
        try:
            count = self._connection.recv_into(buffer)
        finally:
            self._connection.settimeout(ANSWER_SECONDS)
        if not self._size:
            self._until = monotonic() + REQUEST_SECONDS
        self._size += count
        if self._size > MOST_REQUEST:
            raise TooLarge
        return count

    def linger(self) -> None:
        """Say that no more comes, and throw away what still does: unread, it would reset the
        connection, and the answer with it."""
        until, left = monotonic() + LINGER_SECONDS, 1 << 20
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)
            while left > 0 and (seconds := until - monotonic()) > 0:
                self._connection.settimeout(seconds)
                if not (thrown := self._connection.recv(1 << 16)):
                    return
                left -= len(thrown)
