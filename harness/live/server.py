"""The page's server: this machine only, and only whoever has the key.

Every user of the machine, and every website open in the same browser, can reach a port of
127.0.0.1. So each question carries a key, in a header of its own: another site may not send one,
and a cookie would go to the servers of others, too, at whatever port. The page itself says nothing
of anybody's runs. The name asked for must be this machine's own (DNS rebinding).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import re
import secrets
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from harness import process
from harness.config import choices
from harness.errors import UsageError
from harness.live import trainings
from harness.live.curves import AXES
from harness.live.trainings import Trainings
from harness.live.watch import Run, Watch
from harness.loggers import strict_json
from harness.report.drawing.style import DASHES
from harness.report.html.pages import style_sheet

ADDRESS = "127.0.0.1"
NAMES = (ADDRESS, "localhost")  # what a browser may call it
PAGE = Path(__file__).parent / "page"
MOST_CURVES = 256
MOST_POINTS = 500
MOST_HISTOGRAMS = 32
MOST_BODY = 1 << 14
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
GROUPS = ("data", "tokenizer", "model", "optimizer", "schedule", "experiment")
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

Query = Mapping[str, list[str]]


class Refused(Exception):
    """An answer other than what was asked for: a status, and why."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


class Server(ThreadingHTTPServer):
    """Serves the runs of a Watch on 127.0.0.1. Raises OSError if the port is taken."""

    daemon_threads = True

    def __init__(self, watch: Watch, port: int) -> None:
        self.watch = watch
        self.trainings = Trainings(Path.cwd())
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
        """To be typed into a browser."""
        return f"http://{ADDRESS}:{self.port}/?key={self.key}"

    def ticket(self) -> str:
        """An address that works once: a browser's command line is there for all to see."""
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

    def runs(self) -> list[Run]:
        for folder in self.trainings.folders():
            self.watch.add(folder)
        return self.watch.runs()

    def find(self, name: str) -> Run:
        run = next((run for run in self.runs() if run.id == name), None)
        if run is None:
            raise Refused(HTTPStatus.NOT_FOUND, "there is no such run any more")
        return run


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version = "zoo"
    sys_version = ""
    timeout = 60

    def do_GET(self) -> None:
        self._respond(self._get)

    def do_HEAD(self) -> None:
        self._respond(self._get)

    def do_POST(self) -> None:
        self._respond(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: an address may hold the key, and a page asks every second."""

    def _respond(self, answer: Callable[[str, Query], None]) -> None:
        try:
            self._require_own_name()
            answer(*self._address())
        except Refused as refused:
            # What is left of the request was not read: the connection can't go on.
            self.close_connection = True
            self._send_json({"error": str(refused)}, refused.status)
        except UsageError as error:
            self._send_json({"error": str(error)}, HTTPStatus.CONFLICT)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            self.close_connection = True  # the page was closed

    def _address(self) -> tuple[str, Query]:
        try:
            address = urlsplit(self.path)
            return address.path, parse_qs(address.query, max_num_fields=2 * MOST_CURVES)
        except ValueError as error:
            raise Refused(
                HTTPStatus.BAD_REQUEST, f"an address that means nothing: {error}"
            ) from error

    # Who may ask

    def _require_own_name(self) -> None:
        name, _, port = self.headers.get("Host", "").rpartition(":")
        # Any port: a tunnel to this machine may begin at another.
        if name not in NAMES or not port.isdigit():
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

    # What is answered

    def _get(self, path: str, query: Query) -> None:
        if path in self.server.files:
            self._send(self.server.files[path], KINDS[Path(path).suffix or ".html"])
            return
        self._require_key()
        if path in self.ANSWERS:
            self._send_json(self.ANSWERS[path](self, query))
        else:
            raise Refused(HTTPStatus.NOT_FOUND, "there is no such page")

    def _setup(self, query: Query) -> Any:
        """What a page needs once."""
        return {
            "folders": [str(folder) for folder in self.server.watch.folders],
            "dashes": DASHES,
            "axes": AXES,
            "choices": {group: choices(group) for group in GROUPS},
        }

    def _runs(self, query: Query) -> Any:
        return {"runs": [run.card() for run in self.server.runs()]}

    def _run(self, query: Query) -> Any:
        run = self.server.find(_one(query, "run"))
        run.metrics.read()
        return {
            **run.details(),
            "names": run.metrics.names(),
            "snapshot_names": run.metrics.snapshot_names(),
        }

    def _curves(self, query: Query) -> Any:
        """Of each run the curves asked for, thinned, and `read`: which share of its file they
        cover. `names`: of all curves that any of these runs has."""
        names, wanted = query.get("name", []), query.get("run", [])
        if len(names) * len(wanted) > MOST_CURVES:
            raise Refused(HTTPStatus.BAD_REQUEST, f"more than {MOST_CURVES} curves at once")
        axis = _one(query, "axis")
        if axis not in AXES:
            raise Refused(HTTPStatus.BAD_REQUEST, f"axis is one of {', '.join(AXES)}")
        start = _number(query, "start", -math.inf)
        end = _number(query, "end", math.inf)
        answer: dict[str, Any] = {}
        every_name: dict[str, None] = {}
        for run in (run for run in self.server.runs() if run.id in wanted):
            read = run.metrics.read()
            found = {
                name: run.metrics.points(name, axis, MOST_POINTS, start, end) for name in names
            }
            curves = {name: points for name, points in found.items() if points}
            answer[run.id] = {"read": read, "curves": curves}
            every_name |= dict.fromkeys(run.metrics.names())
        return {"runs": answer, "names": list(every_name)}

    def _histograms(self, query: Query) -> Any:
        names = query.get("name", [])
        if len(names) > MOST_HISTOGRAMS:
            raise Refused(HTTPStatus.BAD_REQUEST, f"more than {MOST_HISTOGRAMS} at once")
        run = self.server.find(_one(query, "run"))
        run.metrics.read()
        return {name: run.metrics.snapshots(name) for name in names}

    def _training(self, query: Query) -> Any:
        """How far a training is that this page began: its runs, or why it failed."""
        state = self.server.trainings.state(_number(query, "training", 0))
        if state is None:
            raise Refused(HTTPStatus.NOT_FOUND, "there is no such training")
        runs = [self.server.watch.add(folder).id for folder in state.pop("folders")]
        return {**state, "runs": runs}

    ANSWERS: ClassVar = {
        "/api/setup": _setup,
        "/api/runs": _runs,
        "/api/run": _run,
        "/api/curves": _curves,
        "/api/histograms": _histograms,
        "/api/training": _training,
    }

    def _post(self, path: str, query: Query) -> None:
        self._require_own_origin()
        if path == "/api/key":
            self.close_connection = True  # a body, of which nothing is wanted, was not read
            self._send_json({"key": self._admitted()})
            return
        self._require_key()
        stated = self.headers.get("Content-Length", "")
        length = int(stated) if re.fullmatch("[0-9]{1,9}", stated) else 0
        if not 0 < length <= MOST_BODY:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "a request of no sensible length")
        try:
            asked = json.loads(self.rfile.read(length))
        except (ValueError, RecursionError):
            asked = None
        if not isinstance(asked, dict) or not all(isinstance(v, str) for v in asked.values()):
            raise Refused(HTTPStatus.BAD_REQUEST, "an order is a JSON object of texts")
        if path not in self.CHANGES:
            raise Refused(HTTPStatus.NOT_FOUND, "there is nothing to do there")
        self._send_json(self.CHANGES[path](self, asked))

    def _admitted(self) -> str:
        """The key, for whoever has it or a ticket."""
        if not self.server.admits(self._key):
            raise Refused(HTTPStatus.FORBIDDEN, "This key is of an earlier server, or used up.")
        return self.server.key

    def _start(self, asked: dict[str, str]) -> Any:
        arguments = trainings.split(asked.get("command", ""))
        return {"training": self.server.trainings.start(arguments)}

    def _resume(self, asked: dict[str, str]) -> Any:
        run = self.server.find(asked.get("run", ""))
        return {"training": self.server.trainings.start(trainings.resume(run.folder))}

    def _stop(self, asked: dict[str, str]) -> Any:
        process.stop(self.server.find(asked.get("run", "")).folder)
        return {}

    def _cancel(self, asked: dict[str, str]) -> Any:
        number = asked.get("training", "")
        if not self.server.trainings.stop(int(number) if re.fullmatch("[0-9]{1,9}", number) else 0):
            raise Refused(HTTPStatus.NOT_FOUND, "there is no such training")
        return {}

    CHANGES: ClassVar = {
        "/api/start": _start,
        "/api/resume": _resume,
        "/api/stop": _stop,
        "/api/cancel": _cancel,
    }

    # How it is sent

    def _send_json(self, value: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(strict_json(value).encode(), "application/json", status)

    def _send(self, body: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        # A browser that has it already, as most who ask every second do, is told so.
        tag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
        if status == HTTPStatus.OK and self.headers.get("If-None-Match") == tag:
            body, status = b"", HTTPStatus.NOT_MODIFIED
        self.send_response(status)
        for name, value in {**HEADERS, "ETag": tag}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        if status != HTTPStatus.NOT_MODIFIED:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _one(query: Query, name: str) -> str:
    if name not in query:
        raise Refused(HTTPStatus.BAD_REQUEST, f"{name} is missing")
    return query[name][0]


def _number(query: Query, name: str, otherwise: float) -> float:
    if name not in query:
        return otherwise
    try:
        number = float(query[name][0])
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise Refused(HTTPStatus.BAD_REQUEST, f"{name} is not a number")
    return number
