"""The live page's server in this process, and run folders for it to show."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from harness.live.server import Server
from harness.live.watch import LiveRuns
from tests.waiting import GUARD


class Client:
    """Whoever opened the address with the key."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.host = f"127.0.0.1:{server.port}"

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str | None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """The answer; a header of None is left out, and `_` in its name is `-`."""
        usual: dict[str, str | None] = {"Host": self.host, "X-Zoo-Key": self.server.key}
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=GUARD)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in (usual | given).items():
                if value is not None:
                    connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def get(self, name: str, /, **query: Any) -> Any:
        """What /api/name answers; lists in the query become repeated names."""
        status, _, body = self.ask("GET", f"/api/{name}?{urlencode(query, doseq=True)}")
        answer = json.loads(body)
        assert status == 200, answer
        return answer

    def post(self, name: str, order: Mapping[str, str], **headers: str | None) -> tuple[int, Any]:
        usual = {"Origin": f"http://{self.host}"}
        body = json.dumps(order).encode()
        status, _, answer = self.ask("POST", f"/api/{name}", body, **(usual | headers))
        return status, json.loads(answer)

    def runs(self) -> dict[str, Any]:
        """The cards, by the folder's last name."""
        return {Path(card["folder"]).name: card for card in self.get("runs")["runs"]}


@contextmanager
def serving(*folders: Path) -> Iterator[Client]:
    with Server(LiveRuns(folders), 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield Client(server)
        finally:
            server.shutdown()
            thread.join()


def make_run(folder: Path, rows: Iterable[Mapping[str, Any]] = (), **summary: Any) -> Path:
    """A run's folder as one finds it, without a training."""
    folder.mkdir(parents=True, exist_ok=True)
    usual = {"status": "finished", "model": "gpt", "tokenizer": "char", "data": "text", "seed": 0}
    (folder / "summary.json").write_text(json.dumps(usual | summary))
    (folder / "config.yaml").write_text("model:\n  n_layer: 2\ntrain:\n  steps: 1000\n")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def row(step: int, **values: Any) -> dict[str, Any]:
    """As the loop writes it, for a model of 100 FLOPs a token and 8 tokens a step."""
    axes = {"step": step, "tokens": 8 * step, "bytes": 9 * step, "flops": 800 * step}
    return axes | {"seconds": step / 64, **values}
