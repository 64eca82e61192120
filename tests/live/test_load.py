"""The live page's server under clients that are slow, silent, many or odd. How fast it is then:
`python -m harness.drill requests`."""

from __future__ import annotations

import os
import random
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote

import pytest

from harness.diagnostics.faults.page_load import Load, slow_clients
from harness.live import connections
from harness.live.connections import Connections
from tests.live.live_server import Client, make_run, row, serving
from tests.waiting import GUARD, wait_until

FEW = 16


@pytest.fixture
def few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client of a server that has room for FEW."""
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", FEW)
    make_run(tmp_path / "a", [row(0, loss=1.0)])
    with serving(tmp_path) as client:
        yield client


def connect(client: Client, said: bytes = b"") -> socket.socket:
    connected = socket.create_connection(("127.0.0.1", client.server.port), timeout=GUARD)
    connected.sendall(said)
    return connected


def test_slow_clients_take_no_more_than_their_share(few: Client) -> None:
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else None
    with slow_clients(few.server.port, few.server.key, 8 * FEW) as figures:
        for _ in range(20):
            assert few.ask("GET", "/")[0] == 200
            assert [card["model"] for card in few.get("runs")["runs"]] == ["gpt"]
            assert len(few.server.connections) <= FEW
            if before is not None:
                assert len(os.listdir("/proc/self/fd")) <= before + FEW + 4  # the tests' own
    assert figures["connections"] >= 8 * FEW


def test_whoever_waits_longest_makes_room(few: Client) -> None:
    """And nobody whose answer is being made."""
    begun, go_on = threading.Event(), threading.Event()

    def slowly(query: object) -> str:
        begun.set()
        assert go_on.wait(GUARD)
        return "done"

    few.server.answers.questions["/api/slow"] = slowly
    head = f"Host: {few.host}\r\nX-Zoo-Key: {few.server.key}\r\n"
    with ExitStack() as stack:
        worked_for = stack.enter_context(
            connect(few, f"GET /api/slow HTTP/1.0\r\n{head}\r\n".encode())
        )
        assert begun.wait(GUARD)
        idle = [stack.enter_context(connect(few)) for _ in range(FEW + 2)]
        assert few.ask("GET", "/")[0] == 200  # after all of them
        wait_until(lambda: is_closed(idle[0]))
        assert not is_closed(idle[-1])
        go_on.set()
        assert read_all(worked_for).endswith(b'"done"')


def test_an_open_page_stays_connected(few: Client) -> None:
    """One that has shown the key, and asks nothing for a moment. Whoever begins a request and does
    not end it has no such right."""
    head = f"GET /api/setup HTTP/1.1\r\nHost: {few.host}\r\nX-Zoo-Key: {few.server.key}\r\n\r\n"
    stranger = f"GET /icon.svg HTTP/1.1\r\nHost: {few.host}\r\n\r\n"
    with ExitStack() as stack:
        said = (head, stranger, head)
        page, other, slow = (stack.enter_context(connect(few, each.encode())) for each in said)
        for each in (page, other, slow):
            assert each.recv(12) == b"HTTP/1.1 200"
        slow.sendall(b"GET /api/setup")
        for _ in range(3 * FEW):
            stack.enter_context(connect(few))
        assert few.ask("GET", "/")[0] == 200
        wait_until(lambda: is_closed(other))
        wait_until(lambda: is_closed(slow))
        assert not is_closed(page)


def is_closed(connected: socket.socket) -> bool:
    """After all that was sent has been read."""
    connected.setblocking(False)
    try:
        while connected.recv(1 << 16):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return True


def test_of_many_slow_readers_the_slowest_is_closed(
    few: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that their answers fill no memory."""
    monkeypatch.setattr(connections, "MOST_SENDING", 2)
    few.server.files["/main.js"] = b"x" * (32 << 20)  # more than sockets hold
    with ExitStack() as stack:
        readers = []
        for _ in range(3):
            said = f"GET /main.js HTTP/1.0\r\nHost: {few.host}\r\n\r\n".encode()
            readers.append(stack.enter_context(connect(few, said)))
            assert readers[-1].recv(8) == b"HTTP/1.1"  # its answer is on its way
        sizes = [len(read_all(reader)) for reader in readers]
    assert [size > (32 << 20) for size in sizes] == [False, True, True]


def read_all(connected: socket.socket) -> bytes:
    blocks = []
    with suppress(ConnectionError):
        while block := connected.recv(1 << 20):
            blocks.append(block)
    return b"".join(blocks)


def test_a_process_with_few_descriptors_gives_clients_a_part_of_them() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        assert Connections().most == 64
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def exchange(client: Client, said: bytes) -> bytes:
    """All that is answered to what is said, when nothing more is to come."""
    with connect(client) as connected:
        with suppress(ConnectionError):
            connected.sendall(said)
            connected.shutdown(socket.SHUT_WR)
        return read_all(connected)


LONG = 80_000


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ("GET /" + "x" * LONG, 414),
        ("GET / HTTP/1.1\r\nHost: {host}\r\nX: " + "x" * LONG + "\r\n\r\n", 431),
        ("GET / HTTP/1.1\r\nHost: {host}\r\n" + "X: y\r\n" * 200 + "\r\n", 431),
        ("GET / HTTP/1.1\r\nHost: {host}\r\n" + "X: " + "y" * 900 + "\r\n" * 80 + "\r\n", 200),
        ("GET /\r\nHost: {host}\r\n\r\n", 200),  # HTTP/0.9 knew no status
        ("GET / HTTP/9.9\r\nHost: {host}\r\n\r\n", 505),
        ("\x16\x03\x01\r\n\r\n", 400),  # TLS
    ],
)  # fmt: skip
def test_a_request_of_no_sensible_size_or_form_has_a_status(
    request_: str, status: int, client: Client
) -> None:
    said = request_.replace("{host}", client.host).encode("latin-1")
    assert exchange(client, said).split()[1] == str(status).encode()


def test_a_body_that_is_not_asked_for_is_no_second_request(client: Client) -> None:
    inner = f"GET /main.js HTTP/1.1\r\nHost: {client.host}\r\n\r\n"
    for header in (f"Content-Length: {len(inner)}", "Transfer-Encoding: chunked"):
        said = f"GET / HTTP/1.1\r\nHost: {client.host}\r\n{header}\r\n\r\n{inner}"
        assert exchange(client, said.encode()).count(b"HTTP/1.1 200") == 1


METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get", "G\0T", "", "\xff")
PATHS = (
    "/", "/main.js", "/api/runs", "/api/run?run=x", "/api/curves?axis=step&run=a&name=b",
    "/api/runs?sort=val&up=1&words=gpt", "/api/runs?sort=nope", "/api/setup", "/api/training",
    "/api/histograms", "/api/start", "/api/stop", "/api/key", "//[", "http://[::1", "*", "?", "#",
)  # fmt: skip
HEADERS = (
    "Range: bytes=0-10", "Range: bytes=99999-", "Range: x", "Content-Length: 5",
    "Content-Length: -1", "Content-Length: 9" + "9" * 5000, "Content-Length: 1, 2",
    "Transfer-Encoding: chunked", "Connection: close", "Connection: keep-alive, upgrade",
    "Upgrade: websocket", "Expect: 100-continue", "If-None-Match: *", "Origin: null", "Cookie: a",
    "X-Zoo-Key: \xff", "no colon", ": nothing", " folded", "X:" + "y" * 9000, "\0", "Host: evil",
)  # fmt: skip
HOSTS = ("{host}", "{host}", "{host}", "localhost:1", "evil.example", "", "[::1]:80", "\xff:1")


def some_request(chance: random.Random, client: Client) -> bytes:
    path = chance.choice(PATHS)
    if chance.random() < 0.3:
        path += quote("".join(chance.choices('/?&=.%\0"<é\U0001f600', k=9)))
    first = f"{chance.choice(METHODS)} {path} HTTP/{chance.choice(['1.1', '1.1', '1.0', '2', 'x'])}"
    lines = [f"Host: {chance.choice(HOSTS).replace('{host}', client.host)}"]
    if chance.random() < 0.7:
        lines.append(f"X-Zoo-Key: {client.server.key}")
    if chance.random() < 0.5:
        lines.append(f"Origin: http://{client.host}")
    lines += chance.sample(HEADERS, chance.randrange(4))
    chance.shuffle(lines)
    said = bytearray(("\r\n".join([first, *lines]) + "\r\n\r\n").encode("latin-1"))
    said += chance.randbytes(chance.choice([0, 0, 5, 300]))
    for _ in range(chance.choice([0, 0, 0, 1, 5])):
        said[chance.randrange(len(said))] = chance.randrange(256)
    return bytes(said)


def test_a_thousand_odd_requests_have_a_status_and_leave_no_traceback(
    client: Client, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.live.trainings.subprocess.Popen", None)
    chance = random.Random(0)
    for _ in range(1000):
        said = some_request(chance, client)
        answer = exchange(client, said)
        if said.lstrip(b"\r\n").strip():
            first = answer.partition(b"\r\n")[0]
            assert first.startswith(b"HTTP/1.1 "), (said, answer)
            assert int(first.split()[1]) in [*HTTPStatus], (said, answer)
            assert b" 500 " not in first, (said, answer)
    assert client.ask("GET", "/")[0] == 200
    assert "Traceback" not in capfd.readouterr().err


def test_what_goes_beyond_a_limit_fails_the_drill() -> None:
    assert Load(10, 0, unanswered=0, descriptors=128, bytes=300_000).faults() == []
    assert Load(10, 5, slow={"hung up on": 1}).faults() == []
    assert Load(10, 5).faults() == ["10 runs and 5 slow clients: no slow client was hung up on"]
    assert Load(10, 5, unanswered=2, memory=250_001, slow={"hung up on": 1}).faults() == [
        "10 runs and 5 slow clients: 2 unanswered requests, at most 0",
        "10 runs and 5 slow clients: 250,001 kB of memory, at most 250,000",
    ]
