"""Whom the live page's server answers, and what it refuses."""

from __future__ import annotations

import json
import select
import socket
from pathlib import Path

import pytest

from harness.live import connections, trainings
from harness.live.answers import MOST_CURVES
from tests.live.live_server import Client


def test_it_listens_on_this_machine_alone(client: Client) -> None:
    assert client.server.server_address[0] == "127.0.0.1"
    mine = f"{client.server.port:04X}"
    listening = [
        line.split()[1]
        for name in ("tcp", "tcp6")
        if (table := Path("/proc/net") / name).exists()
        for line in table.read_text().splitlines()[1:]
        if line.split()[3] == "0A" and line.split()[1].endswith(f":{mine}")
    ]
    assert listening == [f"0100007F:{mine}"]
    # 127.0.0.2 is this machine too, and a server on all addresses would answer there.
    with socket.socket() as other, pytest.raises(ConnectionRefusedError):
        other.connect(("127.0.0.2", client.server.port))


PATHS = ("/api/setup", "/api/runs", "/api/run?run=x", "/api/curves?axis=step", "/nope")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("key", [None, "", "wrong", "\x80"])
def test_nothing_is_told_without_the_key(path: str, key: str | None, client: Client) -> None:
    status, _, body = client.ask("GET", path, X_Zoo_Key=key)
    assert status == 403
    assert client.server.key.encode() not in body


def test_the_page_itself_is_nobodys_secret(client: Client) -> None:
    """The same bytes for everyone; they hold nothing of this server."""
    for path in client.server.files:
        status, _, body = client.ask("GET", path, X_Zoo_Key=None)
        assert status == 200
        assert client.server.key.encode() not in body


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "", "127.0.0.1.evil:80", None]
)
def test_no_other_name_leads_here(host: str | None, client: Client) -> None:
    """A website whose name is made to point at 127.0.0.1."""
    given = host and host.replace("{port}", str(client.server.port))
    for method, path in (
        ("GET", "/api/runs"),
        ("POST", "/api/key"),
        ("POST", "/api/stop"),
    ):
        assert client.ask(method, path, Host=given)[0] == 403


@pytest.mark.parametrize("host", ["localhost", "localhost:80", "127.0.0.1", "127.0.0.1:9999"])
def test_a_tunnel_may_have_any_port_or_none(host: str, client: Client) -> None:
    """A browser leaves out port 80."""
    assert client.ask("GET", "/api/runs", Host=host)[0] == 200
    for wrong in (f"{host.partition(':')[0]}:", f"{host.partition(':')[0]}:x", f"x{host}"):
        assert client.ask("GET", "/api/runs", Host=wrong)[0] == 403


def test_the_key_is_set_into_no_cookie(client: Client) -> None:
    """One would go to every server of this machine, whatever its port."""
    for path in (f"/?key={client.server.key}", "/api/runs"):
        _, headers, _ = client.ask("GET", path)
        assert headers["Set-Cookie"] is None
        assert headers["Referrer-Policy"] == "no-referrer"


def test_a_ticket_works_once(client: Client) -> None:
    ticket = client.server.ticket().rpartition("=")[2]
    assert client.server.key != ticket
    assert client.ask("GET", "/api/runs", X_Zoo_Key=ticket)[0] == 403
    assert client.post("key", {}, X_Zoo_Key=ticket) == (200, {"key": client.server.key})
    assert client.post("key", {}, X_Zoo_Key=ticket)[0] == 403
    for wrong in (None, "", "wrong", "\x80"):
        assert client.post("key", {}, X_Zoo_Key=wrong)[0] == 403


@pytest.mark.parametrize("order", ["start", "resume", "stop", "cancel", "key"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": None}, {"Origin": "null"}, {"Origin": "http://evil.example"},
        {"Origin": "https://127.0.0.1"}, {"X_Zoo_Key": None}, {"X_Zoo_Key": "wrong"},
        {"X_Zoo_Key": "\x80"},
    ],
)  # fmt: skip
def test_another_site_can_order_nothing(
    order: str, headers: dict[str, str | None], client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainings.subprocess, "Popen", None)
    status, answer = client.post(order, {"command": "model=gpt", "run": "x"}, **headers)
    assert status == 403, answer


def test_an_order_is_not_taken_by_get(client: Client) -> None:
    assert client.ask("GET", "/api/start?command=model%3Dgpt")[0] == 404
    assert client.ask("PUT", "/api/start")[0] == 501


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (None, 413), (b"", 413), (b"x" * 20_000, 413), (b"{", 400), (b"[]", 400),
        (b"[" * 9000, 400), (b'{"command": 3}', 400), (b"\xff", 400),
    ],
)  # fmt: skip
def test_a_senseless_order_is_refused(body: bytes | None, status: int, client: Client) -> None:
    headers = {"Origin": f"http://{client.host}"}
    assert client.ask("POST", "/api/start", body, **headers)[0] == status


@pytest.mark.parametrize(
    "path",
    [
        "/../../../etc/passwd", "/..%2f..%2fetc/passwd", "/page/main.js", "//etc/passwd",
        "/server.py", "/%2e%2e/server.py", "/style.css/../server.py", "/main.js%00.css",
        "/api/", "/api/run/x", "/api/nope",
    ],
)  # fmt: skip
def test_no_path_leads_out(path: str, client: Client) -> None:
    status, _, body = client.ask("GET", path)
    assert status == 404
    assert json.loads(body) == {"error": "there is no such page"}


@pytest.mark.parametrize("run", ["..", "../../etc", "/etc", "a", "", "0" * 12])
def test_a_run_is_named_by_no_path(run: str, client: Client) -> None:
    for name in ("run", "histograms"):
        assert client.ask("GET", f"/api/{name}?run={run}&name=loss")[0] in (400, 404)
    assert client.post("stop", {"run": run})[0] == client.post("resume", {"run": run})[0] == 404


@pytest.mark.parametrize(
    "query",
    [
        "curves", "curves?axis=nope", "curves?axis=step&start=x", "curves?axis=step&end=nan",
        "curves?axis=step&run=a&" + "&".join(f"name={k}" for k in range(MOST_CURVES + 1)),
        "curves?axis=step&" + "run=a&" * 1000, "training", "training?training=x", "run",
    ],
)  # fmt: skip
def test_a_senseless_question_is_refused_in_words(query: str, client: Client) -> None:
    status, _, body = client.ask("GET", f"/api/{query}")
    assert status in (400, 404)
    assert set(json.loads(body)) == {"error"}


def test_every_answer_forbids_what_the_page_does_not_need(client: Client) -> None:
    for path in PATHS:
        _, headers, _ = client.ask("GET", path)
        assert headers["Content-Security-Policy"].startswith(
            "default-src 'none'; script-src 'self'"
        )
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Access-Control-Allow-Origin"] is None


def test_a_client_that_is_slow_or_silent_is_hung_up_on(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often a byte comes, the whole request must be there in time."""

    def hangs_up(said: bytes, more: bytes) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", client.server.port)) as slow:
                slow.sendall(said)
                for _ in range(1000):
                    ended, _, _ = select.select([slow], [], [], 0.05)
                    if ended:
                        return slow.recv(1) == b""
                    slow.sendall(more)
        except ConnectionError:  # a byte came after it had hung up
            return True
        return False

    with monkeypatch.context() as patch:
        patch.setattr(connections, "IDLE_SECONDS", 0.3)
        assert hangs_up(b"", b"")
    with monkeypatch.context() as patch:
        patch.setattr(connections, "REQUEST_SECONDS", 0.3)
        assert hangs_up(b"GET / HTTP/1.1\r\n", b"x")
        assert hangs_up(b"POST /api/key HTTP/1.1\r\nHost: ", b"x")
        order = (
            f"POST /api/stop HTTP/1.1\r\nHost: {client.host}\r\nOrigin: http://{client.host}\r\n"
        )
        order += f"X-Zoo-Key: {client.server.key}\r\nContent-Length: 9000\r\n\r\n"
        assert hangs_up(order.encode(), b"x")
