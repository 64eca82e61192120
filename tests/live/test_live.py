"""What the live page's server reads and answers, and to whom."""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import select
import socket
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.live import curves, server, trainings, watch
from harness.live.answers import MOST_CURVES, MOST_POINTS
from harness.live.curves import Curve, LiveMetrics, Snapshots
from tests.conftest import Ended
from tests.live.live_server import Client, make_run, row, serving
from tests.waiting import GUARD

# Curves


def buckets(values: list[float], most: int = 10**9, **span: float) -> dict[str, list[float]]:
    curve = Curve()
    axes = np.array([[step, 8 * step, 9 * step, 0, step / 64] for step in range(len(values))])
    for start in range(0, len(values), 1000):
        part = slice(start, start + 1000)
        curve.add(axes[part].astype(float), np.array(values[part]))
    return curve.points("step", most, **span)


def test_a_short_curve_is_kept_as_it_is() -> None:
    values = [0.5, 3.25, -1.0]
    assert buckets(values) == {"x": [0, 1, 2], "y": values, "low": values, "high": values}


@pytest.mark.parametrize("count", [4096, 4097, 20_001])
def test_a_long_curve_is_thinned_to_means_and_extremes(count: int) -> None:
    random.seed(count)
    values = [random.gauss(0, 1) for _ in range(count)]
    values[count // 3] = 1000.0  # one spike among them all
    points = buckets(values)
    size = 2 ** math.ceil(math.log2(count / curves.MOST_BUCKETS))
    parts = [values[start : start + size] for start in range(0, count, size)]
    assert len(points["x"]) == len(parts) <= curves.MOST_BUCKETS
    assert points["y"] == pytest.approx([statistics.fmean(part) for part in parts], rel=1e-5)
    assert points["low"] == pytest.approx([min(part) for part in parts], rel=1e-6)
    assert points["high"] == pytest.approx([max(part) for part in parts], rel=1e-6)
    means = [statistics.fmean(range(k, min(k + size, count))) for k in range(0, count, size)]
    assert points["x"] == pytest.approx(means)


def test_an_answer_is_bounded_and_loses_no_spike() -> None:
    values = [0.0] * 20_000
    values[12_345] = 7.0
    points = buckets(values, most=100)
    assert len(points["x"]) <= 100
    assert max(points["high"]) == 7.0
    assert statistics.fmean(points["y"]) == pytest.approx(7 / 20_000, rel=0.2)


def test_a_part_is_shown_more_closely() -> None:
    values = [float(step) for step in range(3000)]
    whole, part = buckets(values, most=100), buckets(values, most=100, start=1000.0, end=1050.0)
    assert whole["x"][1] - whole["x"][0] == 30
    # One point beyond each end, so that the line leaves the picture.
    assert part["x"] == [float(step) for step in range(999, 1052)]
    assert buckets(values, most=100, start=5000.0)["x"] == []


def test_a_cost_of_zero_has_a_place(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "free", [row(k, loss=k) | {"flops": 0} for k in range(3)])
    metrics = read(folder)
    assert metrics.points("loss", "flops", 10, -math.inf, math.inf) == {
        "x": [0, 0, 0], "y": [0, 1, 2], "low": [0, 1, 2], "high": [0, 1, 2],
    }  # fmt: skip


def test_snapshots_are_spread_over_the_run() -> None:
    kept = Snapshots()
    for step in range(1000):
        kept.add({"step": step})
    steps = [each["step"] for each in kept.all()]
    assert len(steps) <= curves.MOST_SNAPSHOTS + 1
    assert steps[0] == 0
    assert steps[-1] == 999
    gaps = {b - a for a, b in itertools.pairwise(steps[:-1])}
    assert gaps == {64}


# metrics.jsonl


def read(folder: Path) -> LiveMetrics:
    metrics = LiveMetrics(folder / "metrics.jsonl")
    while metrics.read() < 1:
        pass
    return metrics


def values(metrics: LiveMetrics, name: str) -> list[float]:
    points = metrics.points(name, "step", 10**6, -math.inf, math.inf)
    return points["y"] if points else []


def test_reading_goes_on_where_it_ended(tmp_path: Path) -> None:
    folder = make_run(tmp_path, [row(0, loss=4.0)])
    metrics, path = LiveMetrics(folder / "metrics.jsonl"), folder / "metrics.jsonl"
    assert metrics.read() == 1
    line = json.dumps(row(1, loss=3.0))
    with path.open("a") as file:
        file.write(line[:20])  # a line that is still being written
        file.flush()
        metrics.read()
        assert values(metrics, "loss") == [4.0]
        file.write(line[20:] + "\n" + json.dumps(row(2, loss=2.0)) + "\n")
    assert metrics.read() == 1
    assert values(metrics, "loss") == [4.0, 3.0, 2.0]


def test_only_what_is_new_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(tmp_path, [row(k, loss=1.0) for k in range(50)])
    metrics, seen = LiveMetrics(folder / "metrics.jsonl"), []
    parse = curves.parse_row
    monkeypatch.setattr(curves, "parse_row", lambda line: seen.append(line) or parse(line))
    metrics.read()
    assert len(seen) == 50
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row(50, loss=1.0)) + "\n")
    metrics.read()
    assert len(seen) == 51


def test_a_resumed_runs_new_file_is_read_from_its_start(tmp_path: Path) -> None:
    folder = make_run(tmp_path, [row(k, loss=float(k)) for k in range(9)])
    metrics = read(folder)
    fresh = make_run(tmp_path / "fresh", [row(k, loss=-1.0) for k in range(4)])
    os.replace(fresh / "metrics.jsonl", folder / "metrics.jsonl")
    metrics.read()
    assert values(metrics, "loss") == [-1.0] * 4
    (folder / "metrics.jsonl").unlink()
    assert metrics.read() == 1
    assert metrics.names() == []


@pytest.mark.parametrize(
    "line",
    [
        "", "nonsense", "[1]", "null", '{"loss": 1}', '{"step": "3", "loss": 1}', "[" * 10_000,
        '{"step": NaN, "loss": 1}', '{"step": 1, "loss": null, "other": "text", "flag": true}',
        '{"step": 1, "loss": NaN}', '{"step": 1, "loss": 1e999}', '{"step": 1, "loss": "<b>"}',
        '{"step": 1, "h": {"counts": [1], "edges": [0]}, "l": [], "m": [null], "n": {"x": 1}}',
        '{"step": 1, "h": {"counts": [1, "2"], "edges": [0, 1, 2]}, "loss": [1, [2]]}',
    ],
)  # fmt: skip
def test_what_no_run_writes_is_passed_over(line: str, tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    good = json.dumps(row(2, loss=0.5))
    (folder / "metrics.jsonl").write_text(f"{line}\n{good}\n{line}\n")
    metrics = read(folder)
    assert values(metrics, "loss") == [0.5]
    assert metrics.snapshot_names() == []


def test_numbers_of_any_size_are_taken(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    (folder / "metrics.jsonl").write_text(f'{{"step": 1, "loss": {"9" * 4000}, "lr": 7}}\n')
    assert values(read(folder), "lr") == [7]


def test_histograms_and_lists_are_told_from_numbers(tmp_path: Path) -> None:
    histogram = {"counts": [1, 2], "edges": [-1.0, 0.0, 1.0]}
    folder = make_run(tmp_path, [row(5, **{"act/a": histogram, "val/by_position": [1, 2.5]})])
    metrics = read(folder)
    assert metrics.snapshot_names() == ["act/a", "val/by_position"]
    assert metrics.snapshots("act/a") == [{"step": 5, **histogram}]
    assert metrics.snapshots("val/by_position") == [{"step": 5, "values": [1, 2.5]}]
    assert metrics.names() == []


def test_a_run_of_300_000_steps_is_read_bit_by_bit_and_answered_shortly(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "long")
    line = (
        '{{"step": {0}, "tokens": {0}, "bytes": {0}, "flops": {0}, "seconds": {0}, '
        '"train/loss": 2.5, "lr": 0.001, "grad_norm": 1.25}}\n'
    )
    with (folder / "metrics.jsonl").open("w") as file:
        file.writelines(line.format(step) for step in range(300_000))
    with serving(tmp_path) as client:
        run = client.runs()["long"]["id"]
        query = {"run": run, "name": ["train/loss", "lr", "grad_norm"], "axis": "step"}
        shares, sizes = [0.0], []
        while shares[-1] < 1:
            answer = client.get("curves", **query)
            shares.append(answer["runs"][run]["read"])
            sizes.append(len(json.dumps(answer)))
        assert len(shares) > 3  # no single answer waited for the whole file
        assert shares == sorted(shares)
        assert max(sizes) < 100_000
        assert answer["names"] == ["train/loss", "lr", "grad_norm"]
        loss = answer["runs"][run]["curves"]["train/loss"]
        assert len(loss["x"]) <= MOST_POINTS
        assert loss["x"][0] < 1000
        assert loss["x"][-1] > 299_000
        metrics = next(each for each in client.server.answers.runs.all()).metrics
        kept = sum(each._sums_BC.nbytes for each in metrics._curves.values())
        assert kept < 8 * 7 * 8 * curves.MOST_BUCKETS


# The list


def test_what_the_list_says_of_a_run(tmp_path: Path) -> None:
    scores = {"nats_per_token": 1.5, "bits_per_byte": 2.25, "bytes": 10, "stride": 8}
    train = {"steps": 1000, "tokens": 8000, "seconds": 12.5, "tokens_per_second": 640}
    make_run(tmp_path / "a", val=scores, test=scores, train=train, parameters={"total": 7})
    with serving(tmp_path) as client:
        card = client.runs()["a"]
    assert (card["status"], card["model"], card["share"]) == ("finished", "gpt", 1.0)
    assert (card["val"], card["test"], card["parameters"]) == (2.25, 2.25, 7)
    assert (card["step"], card["seconds"], card["tokens_per_second"]) == (1000, 12.5, 640)
    assert (card["can_stop"], card["can_resume"]) == (False, False)


def test_a_run_that_trains_is_read_from_its_last_row(tmp_path: Path) -> None:
    rows = [row(k, **{"train/loss": 4.0 - k / 1000}) for k in range(251)]
    make_run(tmp_path / "a", rows, status="running", train={"steps": 0, "seconds": 0})
    with serving(tmp_path) as client:
        card = client.runs()["a"]
    assert (card["step"], card["share"], card["loss"]) == (250, 0.25, 3.75)
    assert (card["seconds"], card["tokens_per_second"]) == (250 / 64, 8 * 64)


def test_a_row_that_no_run_writes_spoils_no_list(tmp_path: Path) -> None:
    odd = {"tokens": "<b>", "seconds": [1], "train/loss": None, "flops": 10**400}
    make_run(tmp_path / "a", [row(0) | odd], status="running")
    make_run(tmp_path / "b")
    with serving(tmp_path) as client:
        card = client.runs()["a"]
    assert (card["step"], card["seconds"], card["loss"]) == (0, None, None)


def test_a_run_that_died_or_fell_silent_is_not_said_to_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("dead", "elsewhere"):
        make_run(tmp_path / name, [row(0)], status="running")
    ours = {"pid": 2**30, "began": "1", "system": watch.process._system()}
    (tmp_path / "dead" / "process.json").write_text(json.dumps(ours))
    with serving(tmp_path) as client:
        cards = client.runs()
        assert cards["elsewhere"]["status"] == "running"
        os.utime(tmp_path / "elsewhere" / "metrics.jsonl", (1, 1))
        assert client.runs()["elsewhere"]["status"] == "silent"
    if Path("/proc").exists():
        assert (cards["dead"]["status"], cards["dead"]["can_resume"]) == ("lost", True)
    assert not any(card["can_stop"] for card in cards.values())


def test_runs_come_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "RESCAN_SECONDS", 0.0)
    make_run(tmp_path / "a")
    with serving(tmp_path, tmp_path / "not there yet") as client:
        assert set(client.runs()) == {"a"}
        make_run(tmp_path / "not there yet" / "b", model="mlp")
        (tmp_path / "a" / "summary.json").write_text("{")
        cards = client.runs()
        assert set(cards) == {"a", "b"}
        assert cards["a"]["status"] == "damaged"
        for path in (tmp_path / "a").iterdir():
            path.unlink()
        assert set(client.runs()) == {"b"}


def test_a_runs_own_page(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", [row(0, loss=1.0, act={"counts": [1], "edges": [0, 1]})])
    (folder / "samples.txt").write_text(
        "the end of one\n=== step 3 ===\nTo be\nor\n\n=== step 9 ===\n<b>\n\n"
    )
    (folder / "train.log").write_text("first loss 4.2\n")
    with serving(tmp_path) as client:
        run = client.runs()["a"]["id"]
        page = client.get("run", run=run)
        histograms = client.get("histograms", run=run, name=["act", "nope"])
    assert page["config"] == {"model": {"n_layer": 2}, "train": {"steps": 1000}}
    assert page["samples"] == [{"step": 3, "text": "To be\nor"}, {"step": 9, "text": "<b>"}]
    assert (page["names"], page["snapshot_names"]) == (["loss"], ["act"])
    assert page["log"] == "first loss 4.2\n"
    assert histograms == {"act": [{"step": 0, "counts": [1], "edges": [0, 1]}], "nope": []}


# Each line ten times the one before.
BOMB = "a0: &a0 [x]\n" + "".join(
    f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]\n" for k in range(1, 12)
)


@pytest.mark.parametrize(
    "text",
    [
        "", "- a", "x: !!python/object:os.system {}", "{", "a: 2020-01-01", "? [1]\n: 2", "é: ∑",
        "a: 2020-99-99", BOMB,
    ],
)  # fmt: skip
def test_any_configuration_can_be_shown(text: str, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a")
    (folder / "config.yaml").write_text(text)
    with serving(tmp_path) as client:
        client.get("run", run=client.runs()["a"]["id"])


def test_an_unchanged_answer_is_not_sent_again(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    with serving(tmp_path) as client:
        _, headers, body = client.ask("GET", "/api/runs")
        assert body
        again = client.ask("GET", "/api/runs", If_None_Match=headers["ETag"])
        assert (again[0], again[2]) == (304, b"")
        make_run(tmp_path / "a", seed=5)
        assert client.ask("GET", "/api/runs", If_None_Match=headers["ETag"])[0] == 200


# Who may ask


@pytest.fixture
def client(tmp_path: Path) -> Any:
    make_run(tmp_path / "a", [row(0, loss=1.0)])
    with serving(tmp_path) as client:
        yield client


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
        patch.setattr(server, "TIMEOUT", 0.3)
        assert hangs_up(b"", b"")
        assert hangs_up(b"GET / HTTP/1.1\r\n", b"x")
        assert hangs_up(b"POST /api/key HTTP/1.1\r\nHost: ", b"x")


# Trainings


def test_a_command_line_is_split_as_a_shell_would() -> None:
    assert trainings.split("model=gpt 'eval.prompt=\"a b\"'") == ["model=gpt", 'eval.prompt="a b"']
    assert trainings.split("python -m harness.train -m seed=0,1") == ["-m", "seed=0,1"]
    assert trainings.split("model=gpt; rm -rf $HOME `x`") == [
        "model=gpt;", "rm", "-rf", "$HOME", "`x`",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("'", "No closing quotation"),
        ("--config-dir=/tmp model=gpt", "only settings"),
        ("--help", "only settings"),
        ("seed=\0", "NUL"),
    ],
)
def test_what_is_no_setting_starts_nothing(
    line: str, said: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainings.subprocess, "Popen", None)
    status, answer = client.post("start", {"command": line})
    assert status == 409
    assert said in answer["error"]


@pytest.mark.parametrize(
    "name",
    ["a b", "it's a [run], = {x}", 'q"uo\\te\\\\"', "${oc.env:HOME}", "é ∑", "tail\\", "#,:"],
)
def test_a_folder_of_any_name_is_gone_on_with(name: str) -> None:
    from harness.cli.hydra_app import compose
    from harness.config.settings import read_settings

    folder = Path("/somewhere") / name
    where, resume = trainings.resume(folder)
    assert read_settings(compose([where])).run_dir == str(folder)
    assert resume == "resume=true"


# The command


def test_a_mistake_of_the_command_is_one_line(
    tmp_path: Path, command: Callable[..., Ended]
) -> None:
    def mistake(*arguments: object) -> str:
        ended = command("live", *arguments)
        assert ended.code == 2
        (line,) = ended.err.splitlines()
        return line

    assert "no such folder" in mistake(tmp_path / "nope")
    assert "there is no option --prot. Did you mean --port?" in mistake("--prot", "1")
    assert "--port 70000 must be from 0 to 65535" in mistake("--port", "70000")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port} of 127.0.0.1 can't be had" in mistake("--port", port, tmp_path)


def test_the_page_needs_no_torch() -> None:
    script = "import sys, harness.live.server; print({'torch', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=GUARD
    )
    assert done.stdout == "set()\n", done.stderr
