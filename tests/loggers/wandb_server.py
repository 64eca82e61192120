"""As much of a W&B server as a run needs that is logged in: it keeps what it is sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

PROJECT = {"id": "p", "name": "project", "entity": {"id": "e", "name": "me"}}


class Server(ThreadingHTTPServer):
    """about: of each run what it was created with; history: its rows; files: those uploaded."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.about: dict[str, dict[str, Any]] = {}
        self.history: dict[str, list[dict[str, Any]]] = {}
        self.files: set[str] = set()
        self.artifacts: list[str] = []
        self.exit_codes: list[int] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left."""

    def answer(self, query: str, given: dict[str, Any], host: str) -> dict[str, Any]:
        name = given.get("name")
        if "query RunResumeStatus" in query:
            return {"model": {**PROJECT, "bucket": self._bucket(str(name))}}
        if "mutation UpsertBucket" in query:
            is_new = name not in self.about
            if is_new:
                self.about[str(name)] = given | {"config": json.loads(given["config"])}
            bucket = {"id": f"id-{name}", "name": name, "displayName": name, "config": "{}"}
            bucket |= {"project": PROJECT, "sweepName": None, "historyLineCount": 0}
            return {"upsertBucket": {"bucket": bucket, "inserted": is_new}}
        if "mutation CreateRunFiles" in query:
            files = [
                {"name": each, "uploadUrl": f"http://{host}/{each}"} for each in given["files"]
            ]
            return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}
        if "query Viewer" in query:
            return {"viewer": {"id": "v", "entity": "me", "username": "me", "flags": "{}",
                               "teams": {"edges": []}}}  # fmt: skip
        if "query ArtifactType" in query:
            return {"project": {"artifact": None}}
        if "mutation CreateArtifact " in query:
            self.artifacts.append(given["input"]["artifactTypeName"])
        raise KeyError(query)

    def _bucket(self, name: str) -> dict[str, Any] | None:
        if name not in self.about:
            return None
        rows = self.history.get(name, [])
        return {
            "id": f"id-{name}", "name": name, "displayName": name, "summaryMetrics": "{}",
            "logLineCount": 0, "eventsLineCount": 0, "historyLineCount": len(rows),
            "historyTail": json.dumps([json.dumps(row) for row in rows[-1:]]),
            "eventsTail": "[]", "config": "{}", "tags": [], "notes": None,
            "wandbConfig": json.dumps({"t": 1}),  # without it W&B's client takes the run for new
        }  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_PUT(self) -> None:
        self._read()
        self.server.files.add(self.path[1:])
        self._answer({})

    def do_POST(self) -> None:
        sent = json.loads(self._read())
        if self.path.endswith("/file_stream"):
            rows = sent.get("files", {}).get("wandb-history.jsonl", {"content": []})["content"]
            name = self.path.split("/")[-2]
            self.server.history.setdefault(name, []).extend(map(json.loads, rows))
            if sent.get("complete"):
                self.server.exit_codes.append(sent["exitcode"])
            self._answer({"exitcode": None, "limits": {}})
            return
        try:
            host = self.headers["Host"]
            data = self.server.answer(sent["query"], sent.get("variables") or {}, host)
            self._answer({"data": data})
        except KeyError:
            self._answer({"errors": [{"message": "not here"}]})

    def _read(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def _answer(self, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Tests are quiet."""


@contextmanager
def serving() -> Iterator[tuple[Server, str]]:
    """A server and its address."""
    with Server() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server, f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
