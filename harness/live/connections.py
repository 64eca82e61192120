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
    """since: when the server first had to wait for what this client sends or takes; None if it need
    not. welcome: it has had an answer by the key, and has not begun another request: an open
    page between two questions."""

    socket: socket.socket
    since: float | None = None
    welcome: bool = False
    sending: bool = False
    leaving: bool = False

    def hang_up(self) -> None:
        """Its thread, which waits for it, sees the end and closes it."""
        self.leaving = True
        with suppress(OSError):  # the client was faster
            self.socket.shutdown(socket.SHUT_RDWR)


class Connections:
    """At most `most` of them. For another one, the client that has kept the server waiting longest
    is hung up on; open pages last of all. Thread-safe."""

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
            self._open[connection] = Connection(connection)

    def remove(self, connection: socket.socket) -> None:
        with self._changed:
            self._open.pop(connection, None)
            self._changed.notify_all()

    def waits_for(self, connection: socket.socket, on: bool) -> None:
        """Whether this client keeps the server waiting."""
        own = self._open[connection]
        with self._changed:
            own.since = (own.since or monotonic()) if on else None
            self._changed.notify_all()

    def welcome(self, connection: socket.socket, on: bool) -> None:
        self._open[connection].welcome = on

    def send(self, connection: socket.socket, content: bytes) -> None:
        """Send all of it. What can't be sent at once is held in memory until the client reads;
        beyond MOST_SENDING such answers the slowest reader is hung up on."""
        sent = 0
        connection.settimeout(0.0)
        with suppress(BlockingIOError):
            sent = connection.send(content)
        connection.settimeout(ANSWER_SECONDS)
        if sent < len(content):
            with self._sending(connection):
                connection.sendall(memoryview(content)[sent:])

    @contextmanager
    def _sending(self, connection: socket.socket) -> Iterator[None]:
        own = self._open[connection]
        with self._changed:
            readers = [each for each in self._open.values() if each.sending and not each.leaving]
            if len(readers) >= MOST_SENDING:
                self._hang_up_on_longest(readers, 1)
            own.since, own.sending = monotonic(), True
        try:
            yield
        finally:
            own.sending, own.since = False, None

    @staticmethod
    def _hang_up_on_longest(among: list[Connection], count: int) -> None:
        waiting = [each for each in among if each.since is not None]
        for each in sorted(waiting, key=lambda each: (each.welcome, each.since or 0.0))[:count]:
            each.hang_up()


class AnswerWriter(io.BufferedIOBase):
    """Sends what is written to it. Raises TimeoutError."""

    def __init__(self, connection: socket.socket, connections: Connections) -> None:
        self._connection = connection
        self._connections = connections

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self._connections.send(self._connection, content)
        return len(content)


class TooLarge(HTTPException):
    """A request of more than MOST_REQUEST bytes."""


class RequestReader(io.RawIOBase):
    """Reads what a client sends. Raises TimeoutError and TooLarge.

    The limits are for the whole request, not for the next byte: however steadily a slow client
    sends, it holds a thread no longer than that.
    """

    def __init__(self, connection: socket.socket, connections: Connections) -> None:
        self._connection = connection
        self._connections = connections
        self.begin()

    def begin(self) -> None:
        """A new request may come."""
        self._until = monotonic() + IDLE_SECONDS
        self._size = 0
        self._connections.waits_for(self._connection, False)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            self._connection.settimeout(0.0)
            count = self._connection.recv_into(buffer)
        except BlockingIOError:
            self._connections.waits_for(self._connection, True)
            self._connection.settimeout(max(0.001, self._until - monotonic()))
            count = self._connection.recv_into(buffer)
        if not self._size:
            self._connections.welcome(self._connection, False)
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
