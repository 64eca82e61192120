"""The live page with many runs and slow clients, beside an idle one: a table of answer times as
ratios to those of the idle page with ten runs, descriptors, threads, memory."""

from __future__ import annotations

import http.client
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, sleep
from typing import Any
from urllib.parse import urlsplit

SLOW_CLIENTS = Path(__file__).parent / "slow_clients.py"
DESCRIPTORS = 256  # that the server may have: the default of macOS; Linux has 1024
PAGE_PAUSE = 0.1  # seconds between two requests, so that all kinds of moments are met
PATIENCE = 60.0
RUNS, CLIENTS = 10_000, 2_000
MOST_BYTES, MOST_MEMORY = 300_000, 250_000  # of an answer; of the server, in kB


def make_run(folder: Path, seed: int, status: str) -> None:
    """A run's folder as one finds it, without a training."""
    folder.mkdir(parents=True)
    steps = range(20)
    rows = [{"step": step, "seconds": step / 64, "train/loss": 4 - step / 100} for step in steps]
    score = {"nats_per_token": 1.5, "bits_per_byte": 2.25, "bytes": 10, "stride": 8}
    summary = {"status": status, "model": "gpt", "tokenizer": "char", "data": "text", "seed": seed}
    summary |= {"val": score, "train": {"steps": 19, "seconds": 3.0}}
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "config.yaml").write_text("model:\n  n_layer: 2\ntrain:\n  steps: 1000\n")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def make_runs(folder: Path, count: int) -> None:
    """One in twenty says that it trains; every other one is finished."""
    for number in range(count):
        status = "running" if number % 20 == 19 else "finished"
        make_run(folder / f"{number // 100}" / f"{number}", number, status)


@dataclass
class Page:
    """A server in a process of its own, as a user starts it."""

    process: subprocess.Popen[str]
    port: int
    key: str

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def ask(self, path: str, over: http.client.HTTPConnection | None = None) -> tuple[float, bytes]:
        """Seconds and answer, over a new connection or, as an open page does, over its own. Raises
        OSError if it is not answered."""
        begun = perf_counter()
        connection = over or self.connect()
        try:
            connection.request("GET", path, headers={"X-Zoo-Key": self.key})
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException):
            if over is None:
                raise
            over.close()  # hung up on between two requests: a browser connects again, unseen
            body = self.ask(path)[1]
            return perf_counter() - begun, body
        finally:
            if over is None:
                connection.close()
        assert answer.status == 200, (answer.status, body)
        return perf_counter() - begun, body

    def list(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ask("/api/runs")[1])
        return found

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def status(self, name: str) -> int:
        """A number of /proc/PID/status: VmHWM and VmRSS in kB, Threads."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(name))


@contextmanager
def page(folder: Path) -> Iterator[Page]:
    """A server of the runs in `folder` that may have DESCRIPTORS."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    command = [sys.executable, "-m", "harness.live", "--port", "0", str(folder)]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=said, text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, limit[1])),
        )  # fmt: skip
        try:
            assert process.stdout is not None
            address = urlsplit(process.stdout.readline().strip())
            yield Page(process, int(address.port or 0), address.query.removeprefix("key="))
            assert process.poll() is None, "the server has ended"
            said.seek(0)
            assert "Traceback" not in (text := said.read()), text
        finally:
            process.kill()
            process.communicate()


@contextmanager
def slow_clients(port: int, key: str, count: int) -> Iterator[dict[str, int]]:
    """While the block runs, all of them have been connected once. Yields what they say in the
    end."""
    process = subprocess.Popen(
        [sys.executable, str(SLOW_CLIENTS), str(port), str(count), key],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    figures: dict[str, int] = {}
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "all are there\n"
        yield figures
    finally:
        out, _ = process.communicate()
        figures |= json.loads(out)


@dataclass
class Load:
    """What one page under one load did: seconds by question; what it used at most."""

    runs: int
    clients: int
    seconds: dict[str, list[float]] = field(default_factory=dict)
    bytes: int = 0
    unanswered: int = 0
    descriptors: int = 0
    threads: int = 0
    memory: int = 0  # kB
    slow: Mapping[str, int] = field(default_factory=dict)

    def faults(self) -> list[str]:
        """What went beyond its limit."""
        measured = {
            "unanswered requests": (self.unanswered, 0),
            "descriptors": (self.descriptors, DESCRIPTORS // 2),
            "threads": (self.threads, DESCRIPTORS // 2),
            "bytes of an answer": (self.bytes, MOST_BYTES),
            "kB of memory": (self.memory, MOST_MEMORY),
        }
        where = f"{self.runs} runs and {self.clients} slow clients"
        wrong = [
            f"{where}: {value:,} {name}, at most {most:,}"
            for name, (value, most) in measured.items()
            if value > most
        ]
        if self.clients and not self.slow.get("hung up on"):  # then it was not under load
            wrong.append(f"{where}: no slow client was hung up on")
        return wrong


def measure(
    page: Page, own: http.client.HTTPConnection, runs: int, clients: int, requests: int
) -> Load:
    """Ask as a browser does that opens the page, and as one in which it is open already, over its
    `own` connection."""
    load = Load(runs, clients)
    for _ in range(requests):
        for name, path, over in (
            ("opening it", "/", None), ("its list", "/api/runs", None),
            ("the list again", "/api/runs", own),
        ):  # fmt: skip
            try:
                seconds, body = page.ask(path, over)
            except (OSError, http.client.HTTPException):
                load.unanswered += 1
                continue
            load.seconds.setdefault(name, []).append(seconds)
            load.bytes = max(load.bytes, len(body))
        load.descriptors = max(load.descriptors, page.descriptors())
        load.threads = max(load.threads, page.status("Threads"))
        sleep(PAGE_PAUSE)
    load.memory = page.status("VmHWM")
    return load


def loads(folder: Path, runs: int, clients: int, requests: int) -> Iterator[Load]:
    """Ten runs and `runs`, each without and with slow clients."""
    for count in (10, runs):
        make_runs(folder / str(count), count)
        with page(folder / str(count)) as served:
            while (found := served.list())["unread"] or found["known"] < count:
                pass
            own = served.connect()
            yield measure(served, own, count, 0, requests)
            with slow_clients(served.port, served.key, clients) as figures:
                load = measure(served, own, count, clients, requests)
            load.slow = figures
            yield load


def table(found: list[Load]) -> str:
    base = found[0]
    head = ["runs", "slow clients", "unanswered", *(
        f"{path}, {name}" for path in base.seconds for name in ("median", "worst")
    ), "largest answer", "descriptors", "threads", "peak memory", "connections",
        "hung up on"]  # fmt: skip
    lines = [head, ["---:"] * len(head)]
    for load in found:
        ratios = [
            f"{how(load.seconds[path]) / statistics.median(base.seconds[path]):.1f}"
            for path in base.seconds
            for how in (statistics.median, max)
        ]
        lines.append([
            f"{load.runs:,}", f"{load.clients:,}", str(load.unanswered), *ratios,
            f"{load.bytes / 1000:.0f} kB", str(load.descriptors), str(load.threads),
            f"{load.memory / 1000:.0f} MB",
            *(f"{load.slow.get(name, 0):,}" for name in ("connections", "hung up on")),
        ])  # fmt: skip
    medians = ", ".join(
        f"{path} {1000 * statistics.median(times):.1f} ms" for path, times in base.seconds.items()
    )
    rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{rows}\n\nThe idle page's medians: {medians}."


def run_requests(requests: int) -> int:
    """Print the table; returns 1 if a limit was passed."""
    with tempfile.TemporaryDirectory() as folder:
        found = list(loads(Path(folder), RUNS, CLIENTS, requests))
    print(table(found))
    wrong = [line for load in found for line in load.faults()]
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return int(bool(wrong))
