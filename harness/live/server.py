"""The page's server: for this machine only, and only with the key.

Every user of the machine, and every website open in the same browser, can reach a port of
127.0.0.1. So each API request carries a key in a custom header, which other sites can't send. A
cookie would also be sent to other users' servers, on any port. The page's own files hold nothing of
any run. The Host header must name this machine (against DNS rebinding).

It is the standard library's server, with the limits of connections.py: uvicorn would need no less
code, and does not limit how long a client may be idle before its first request or take to send its
headers.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import re
import secrets
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import sleep
from typing import Any
from urllib.parse import parse_qs, urlsplit

from harness.common.errors import UsageError
from harness.common.rows import strict_json
from harness.live.answers import MOST_FIELDS, Answers, Query, Refused
from harness.live.connections import AnswerWriter, Connections, RequestReader, TooLarge
from harness.live.watch import LiveRuns
from harness.report.html.pages import style_sheet

ADDRESS = "127.0.0.1"
NAMES = (ADDRESS, "localhost")  # what a browser may call it
PAGE = Path(__file__).parent / "page"
PORT = 8317
LATER_PORTS = 20
MOST_BODY = 1 << 14
NO_DESCRIPTOR_PAUSE = 0.05  # seconds
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
# Of a page that lies in a run's folder, which a stranger may have written: it has an origin of its
# own, so that it can't read this page's key, and asks for nothing.
PAGE_POLICY = (
    "sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
OPENED = "/opened/"


def bind(folders: Sequence[Path], port: int | None) -> Server:
    """A server of the runs in these folders, on `port`; None: the first free one from PORT on.
    Raises UsageError if the port is taken."""
    wanted = range(PORT, PORT + LATER_PORTS) if port is None else [port]
    for number in wanted:
        try:
            return Server(LiveRuns(folders), number)
        except OSError as error:
            refusal = error
    raise UsageError(
        f"port {wanted[0]} of {ADDRESS} can't be had ({refusal.strerror}); "
        "--port 0 takes any that is free"
    )


class Server(ThreadingHTTPServer):
    """Serves the runs of some folders on 127.0.0.1. Raises OSError if the port is taken."""

    daemon_threads = True
    request_queue_size = 1024  # where a client waits for room

    def __init__(self, runs: LiveRuns, port: int) -> None:
        self.connections = Connections()
        self.answers = Answers(runs)
        self.key = secrets.token_urlsafe(24)
        self._tickets: set[str] = set()
        self.files = {f"/{path.name}": path.read_bytes() for path in PAGE.iterdir()}
        own = self.files["/style.css"].decode()
        self.files["/style.css"] = (style_sheet() + own).encode()
        self.files["/"] = self.files.pop("/index.html")
        super().__init__((ADDRESS, port), Handler)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def address(self) -> str:
        """The URL to open in a browser."""
        return f"http://{ADDRESS}:{self.port}/?key={self.key}"

    def ticket(self) -> str:
        """A URL that works once: every user can see a browser's command line."""
        ticket = secrets.token_urlsafe(24)
        self._tickets.add(ticket)
        return f"http://{ADDRESS}:{self.port}/?key={ticket}"

    def admits(self, key: str) -> bool:
        if key in self._tickets:
            self._tickets.discard(key)
            return True
        return self.is_key(key)

    def is_key(self, key: str) -> bool:
        return hmac.compare_digest(key.encode(errors="replace"), self.key.encode())

    # Connections

    def get_request(self) -> tuple[socket.socket, Any]:
        self.connections.make_room()
        try:
            return super().get_request()
        except OSError:
            sleep(NO_DESCRIPTOR_PAUSE)  # the machine has none left: no busy loop until it has
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def close_request(self, request: Any) -> None:
        super().close_request(request)
        self.connections.remove(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # the client is gone
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.0"  # 0.9 has no status
    server_version = "zoo"
    sys_version = ""

    def setup(self) -> None:
        super().setup()
        self._reader = RequestReader(self.connection, self.server.connections)
        self.rfile = io.BufferedReader(self._reader)
        self.wfile = AnswerWriter(self.connection, self.server.connections)

    def handle_one_request(self) -> None:
        self._reader.begin()
        try:
            super().handle_one_request()
        except TooLarge:  # a request line without an end
            self.requestline, self.command = "", ""
            self.request_version = self.default_request_version
            self.send_error(HTTPStatus.REQUEST_URI_TOO_LONG)

    def finish(self) -> None:
        super().finish()
        self._reader.linger()

    def do_GET(self) -> None:
        self._respond(self._get)

    def do_HEAD(self) -> None:
        self._respond(self._get)

    def do_POST(self) -> None:
        self._respond(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        """No log: a URL may hold the key, and a page sends a request every second."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the standard library refuses: a request that is none."""
        self.close_connection = True
        self._send_json({"error": message or HTTPStatus(code).phrase}, HTTPStatus(code))

    def _respond(self, answer: Callable[[str, Query], None]) -> None:
        has_body = "Transfer-Encoding" in self.headers or "Content-Length" in self.headers
        if has_body and self.command != "POST":
            self.close_connection = True  # unread, it would pose as the next request
        try:
            self._require_own_name()
            answer(*self._address())
        except Refused as refused:
            # The rest of the request was not read: the connection can't be used again.
            self.close_connection = True
            self._send_json({"error": str(refused)}, refused.status)
        except TooLarge:
            self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        except UsageError as error:
            self._send_json({"error": str(error)}, HTTPStatus.CONFLICT)

    def _work(self, answer: Callable[[], Any]) -> Any:
        """The answer. A bug fails this request alone."""
        self.server.connections.waits_for(self.connection, False)
        try:
            return answer()
        except (Refused, UsageError):
            raise
        except Exception as error:
            traceback.print_exc()
            raise Refused(
                HTTPStatus.INTERNAL_SERVER_ERROR, "a bug: the page's terminal says where"
            ) from error

    def _address(self) -> tuple[str, Query]:
        try:
            address = urlsplit(self.path)
            return address.path, parse_qs(address.query, max_num_fields=MOST_FIELDS)
        except ValueError as error:
            raise Refused(
                HTTPStatus.BAD_REQUEST, f"an address that means nothing: {error}"
            ) from error

    # Authentication

    def _require_own_name(self) -> None:
        name, colon, port = self.headers.get("Host", "").partition(":")
        # Any port, or none: a tunnel to this machine may have another one, or 80.
        if name not in NAMES or (colon and not port.isdigit()):
            raise Refused(HTTPStatus.FORBIDDEN, f"this page is at http://{ADDRESS}, and only there")

    @property
    def _key(self) -> str:
        return self.headers.get("X-Zoo-Key", "")

    def _require_key(self) -> None:
        if not self.server.is_key(self._key):
            raise Refused(
                HTTPStatus.FORBIDDEN,
                "Open the address that `python -m harness.live` printed: it carries a key.",
            )

    def _require_own_origin(self) -> None:
        if self.headers.get("Origin") != f"http://{self.headers.get('Host')}":
            raise Refused(HTTPStatus.FORBIDDEN, "another site may not ask this")

    # Requests

    def _get(self, path: str, query: Query) -> None:
        if path in self.server.files:
            self._send(self.server.files[path], KINDS[Path(path).suffix or ".html"])
            return
        if path.startswith(OPENED):
            name = path.removeprefix(OPENED)
            body, kind = self._work(lambda: self.server.answers.page(name))
            self._send(body, kind, policy=PAGE_POLICY)
            return
        self._require_key()
        if path not in self.server.answers.questions:
            raise Refused(HTTPStatus.NOT_FOUND, "there is no such page")
        self._send_json(self._work(lambda: self.server.answers.questions[path](query)))
        self.server.connections.welcome(self.connection, True)

    def _post(self, path: str, query: Query) -> None:
        self._require_own_origin()
        if path == "/api/key":
            self.close_connection = True  # a body, if there is one, was not read
            self._send_json({"key": self._admitted()})
            return
        self._require_key()
        stated = self.headers.get("Content-Length", "")
        length = int(stated) if re.fullmatch("[0-9]{1,9}", stated) else 0
        if not 0 < length <= MOST_BODY or "Transfer-Encoding" in self.headers:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "a request of no sensible length")
        try:
            asked = json.loads(self.rfile.read(length))
        except (ValueError, RecursionError):
            asked = None
        if not isinstance(asked, dict) or not all(isinstance(v, str) for v in asked.values()):
            raise Refused(HTTPStatus.BAD_REQUEST, "an order is a JSON object of texts")
        if path not in self.server.answers.orders:
            raise Refused(HTTPStatus.NOT_FOUND, "there is nothing to do there")
        self._send_json(self._work(lambda: self.server.answers.orders[path](asked)))

    def _admitted(self) -> str:
        """The key, in exchange for the key or a ticket."""
        if not self.server.admits(self._key):
            raise Refused(HTTPStatus.FORBIDDEN, "This key is of an earlier server, or used up.")
        return self.server.key

    # Answers

    def _send_json(self, value: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(strict_json(value).encode(), "application/json", status)

    def _send(
        self, body: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK, policy: str | None = None
    ) -> None:
        # Most answers have not changed since the last request: 304 instead.
        tag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
        if status == HTTPStatus.OK and self.headers.get("If-None-Match") == tag:
            body, status = b"", HTTPStatus.NOT_MODIFIED
        self.send_response(status)
        own = {"ETag": tag} | ({"Content-Security-Policy": policy} if policy else {})
        for name, value in {**HEADERS, **own}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        if status != HTTPStatus.NOT_MODIFIED:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
