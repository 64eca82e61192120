"""Clients that keep the live page's server waiting, each in its own way, and come again when they
are hung up on. A process of their own, so that their descriptors are not the server's:

    python slow_clients.py PORT COUNT KEY     ends with its standard input

Prints a line when all have been connected, and one of figures when it ends.
"""

from __future__ import annotations

import heapq
import json
import resource
import selectors
import socket
import sys
from collections import Counter
from time import monotonic

BEAT, AGAIN = 1.0, 1.0  # seconds: between two bytes; until one that was hung up on comes again


def says(kind: str, port: int, key: str) -> tuple[bytes, bytes]:
    """What a client of this kind says at first, and at each beat."""
    host = f"Host: 127.0.0.1:{port}\r\n".encode()
    known = host + f"X-Zoo-Key: {key}\r\n".encode()
    order = b"POST /api/stop HTTP/1.1\r\n" + known + b"Origin: http://" + host[6:]
    files = (b"GET /chart.js HTTP/1.1\r\n" + host + b"\r\n") * 400  # more than a socket holds
    return {
        "idle": (b"", b""),
        "slow headers": (b"GET / HTTP/1.1\r\n" + host + b"X: ", b"x"),
        "slow body": (order + b"Content-Length: 9000\r\n\r\n", b"x"),
        "slow reader": (b"GET /api/runs HTTP/1.1\r\n" + known + b"\r\n" + files, b""),
        "stranger's slow reader": (files, b""),
        "half-closed": (b"GET / HTTP/1.1\r\n" + host, b""),
    }[kind]


KINDS = (
    "idle", "slow headers", "slow body", "slow reader", "stranger's slow reader", "half-closed",
)  # fmt: skip


class Clients:
    """As many of each kind."""

    def __init__(self, port: int, count: int, key: str) -> None:
        self.port, self.key = port, key
        self.selector = selectors.DefaultSelector()
        self.kinds = [KINDS[number % len(KINDS)] for number in range(count)]
        self.sockets: dict[int, socket.socket] = {}
        self.turns: Counter[int] = Counter()
        self.due = [(0.0, number, 0) for number in range(count)]
        self.met: set[int] = set()
        self.figures: Counter[str] = Counter()

    def connect(self, number: int) -> None:
        client = socket.socket()
        client.setblocking(False)
        if "reader" in self.kinds[number]:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect_ex(("127.0.0.1", self.port))
        self.sockets[number] = client
        self.selector.register(client, selectors.EVENT_WRITE, number)

    def begin(self, number: int) -> None:
        """It is connected."""
        client, kind = self.sockets[number], self.kinds[number]
        self.met.add(number)
        self.figures["connections"] += 1
        first, _ = says(kind, self.port, self.key)
        try:
            if first:
                client.send(first)
            if kind == "half-closed":
                client.shutdown(socket.SHUT_WR)
        except OSError:
            self.lose(number)
            return
        # A slow reader never reads; the others see when they are hung up on.
        events = 0 if "reader" in kind else selectors.EVENT_READ
        self.selector.unregister(client)
        if events:
            self.selector.register(client, events, number)
        self.wait(number, BEAT)

    def beat(self, number: int) -> None:
        if number not in self.sockets:
            self.connect(number)
            return
        _, more = says(self.kinds[number], self.port, self.key)
        try:
            if more:
                self.sockets[number].send(more)
            elif self.sockets[number].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise ConnectionError
        except OSError:
            self.lose(number)
            return
        self.wait(number, BEAT)

    def lose(self, number: int) -> None:
        self.figures["hung up on"] += 1
        client = self.sockets.pop(number)
        if client in self.selector.get_map():
            self.selector.unregister(client)
        client.close()
        self.turns[number] += 1  # what was due is no longer
        self.wait(number, AGAIN)

    def wait(self, number: int, seconds: float) -> None:
        heapq.heappush(self.due, (monotonic() + seconds, number, self.turns[number]))

    def run(self) -> None:
        """Until standard input ends."""
        said = False
        self.selector.register(sys.stdin, selectors.EVENT_READ)
        while True:
            while self.due and self.due[0][0] <= monotonic():
                _, number, turn = heapq.heappop(self.due)
                if turn == self.turns[number]:
                    self.beat(number)
            for found, events in self.selector.select(0.02):
                if found.fileobj is sys.stdin:
                    print(json.dumps(self.figures), flush=True)
                    return
                if events & selectors.EVENT_WRITE:
                    self.begin(found.data)
                elif not self.is_there(found.data):
                    self.lose(found.data)
            if not said and len(self.met) == len(self.kinds):
                said = True
                print("all are there", flush=True)

    def is_there(self, number: int) -> bool:
        try:
            return self.sockets[number].recv(1 << 16) != b""
        except OSError:
            return False


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    Clients(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]).run()
