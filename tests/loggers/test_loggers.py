"""Every number of a run reaches every logger, and no logger reaches the training."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import math
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.common.errors import RunFailure, UsageError
from harness.common.paths import REPOSITORY
from harness.common.rows import Histogram, strict_json
from harness.config.saved import load_settings
from harness.loggers import build, followers
from harness.loggers.flat import flat_results, flat_settings
from harness.loggers.local import Local
from harness.runs import metrics
from tests import small_runs as training
from tests.loggers.wandb_server import serving
from tests.small_runs import rows, settings, train
from tests.waiting import wait_until

GPT_SMALL = ("model=gpt", "model.n_layer=1", "model.n_head=2", "model.n_embd=16", "train.steps=12")
BIGRAM = ("model=bigram", "train.steps=12", "checkpoint.every=4")
KEY = "0123456789abcdef0123456789abcdef01234567"
AXES = ["step", "tokens", "bytes", "flops", "seconds"]


@pytest.fixture(autouse=True)
def _a_machine_of_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not logged in anywhere, no network, and what trackio writes is the test's."""
    for name in [name for name in os.environ if name.startswith(("WANDB_", "TRACKIO_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    # A busy machine is no reason for a warning.
    for limit in ("START_UP", "LEAVING", "FINISHING"):
        monkeypatch.setattr(followers, limit, 600)


# What the loggers hold


def wandb_reads(session: Path, *options: str) -> str:
    """What W&B's own reader makes of an offline run."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", *options, str(session)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def wandb_sessions(run: Path) -> list[list[dict[str, Any]]]:
    """The records of each session of the run, in order."""
    sessions = sorted((run / "wandb").glob("offline-run-*"))
    return [[json.loads(line) for line in wandb_reads(path).splitlines()] for path in sessions]


def of_type(records: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [record[kind] for record in records if record["type"] == kind]


def wandb_rows(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A session's history, without what W&B adds, dots between the levels of its names."""
    items = [item["item"] for item in of_type(records, "history")]
    added = ("_", "samples.", "report.")
    kept = [{k: v for k, v in item.items() if not k.startswith(added)} for item in items]
    assert [row["step"] for row in kept] == [item["_step"] for item in items]
    return kept


def as_wandb(row: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            found |= {f"{name}._type": "histogram", f"{name}.bins": value["edges"]}
            found |= {f"{name}.values": value["counts"]}
        else:
            found[name] = value
    return found


def tensorboard_rows(run: Path) -> list[dict[str, Any]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"), {"scalars": 0, "histograms": 0}).Reload()
    found: dict[int, dict[str, Any]] = {}
    for name in events.Tags()["scalars"]:
        if not name.startswith(("test/", "best/")):
            for event in events.Scalars(name):
                assert name not in found.setdefault(event.step, {})
                found[event.step][name] = event.value
    for name in events.Tags()["histograms"]:
        for event in events.Histograms(name):
            value = event.histogram_value
            moments = value.min, value.max, value.num, value.sum, value.sum_squares
            found[event.step][name] = (*moments, value.bucket_limit, value.bucket)
    return [found[step] for step in sorted(found)]


def as_tensorboard(row: dict[str, Any]) -> dict[str, Any]:
    """Numbers in single precision, of a histogram the sum of what lies at its buckets' middles; a
    bucket is named by where it ends, and the first, empty one ends where the values begin."""
    import numpy as np

    found: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            counts, edges = np.array(value["counts"]), np.array(value["edges"])
            middles = (edges[1:] + edges[:-1]) / 2
            sums = (counts * middles).sum(), (counts * middles**2).sum()
            found[name] = (
                edges[0], edges[-1], counts.sum(), *(pytest.approx(each) for each in sums),
                value["edges"], [0, *value["counts"]],
            )  # fmt: skip
        else:
            found[name] = float(np.float32(value))
    return found


def trackio_rows() -> list[dict[str, Any]]:
    """The rows that a user of trackio sees, all of them of one run."""
    found = json.loads(trackio("SELECT run_name, step, metrics FROM metrics ORDER BY step"))["rows"]
    assert len({row["run_name"] for row in found}) == 1
    both = [{"step": row["step"], **json.loads(row["metrics"])} for row in found]
    return [row for row in both if "tokens" in row]


def trackio(query: str) -> str:
    """What trackio's own command answers."""
    command = [sys.executable, "-m", "trackio.cli", "query", "project", "--json"]
    command += ["--project", "language-model-zoo", "--sql", query]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def as_trackio(row: dict[str, Any]) -> dict[str, Any]:
    def media(value: dict[str, Any]) -> dict[str, Any]:
        return {"_type": "trackio.histogram", "bins": value["edges"], "values": value["counts"]}

    return {name: media(value) if isinstance(value, dict) else value for name, value in row.items()}


def defined(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Loggers leave out what has no value."""
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


def warnings(run: Path) -> list[str]:
    lines = (run / "train.log").read_text().splitlines()
    return [line for line in lines if " WARNING " in line]


# A training and its loggers


def test_every_number_reaches_every_logger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    watched = (*GPT_SMALL, "observe=full", "observe.every=5")
    train(tmp_path / "plain", *watched)
    loggers = ("logger=[local,wandb,tensorboard,trackio]", "logger.wandb.checkpoint=true")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "multirun.yaml").touch()  # a sweep's folder, then
    assert train(tmp_path / "a", *watched, *loggers, "logger.wandb.tags=[mine]") == 0
    run = tmp_path / "a" / "run"
    assert training.trace(tmp_path / "a") == training.trace(tmp_path / "plain")
    assert warnings(run) == []
    expected = defined(rows(tmp_path / "a"))
    assert len(expected) == 13
    assert sum(isinstance(value, dict) for row in expected for value in row.values()) > 20

    (session,) = wandb_sessions(run)
    assert wandb_rows(session) == [as_wandb(row) for row in expected]
    assert tensorboard_rows(run) == [as_tensorboard(row) for row in expected]
    assert trackio_rows() == [as_trackio(row) for row in expected]
    assert list(here.iterdir()) == []

    # What W&B's pages are made of.
    (about,) = of_type(session, "run")
    names = {name: about.get(name) for name in ("display_name", "job_type", "project", "run_group")}
    assert names == {
        "display_name": "run", "job_type": "train", "project": "language-model-zoo",
        "run_group": "a",
    }  # fmt: skip
    assert about["tags"] == ["text", "char", "gpt", "mine"]
    found = about["config"]["update"]
    found.pop("_wandb")
    assert found == flat_settings(load_settings(run / "config.yaml"))
    metrics = {each.get("name") or each["glob_name"]: each for each in of_type(session, "metric")}
    assert [name for name, each in metrics.items() if "step_metric" not in each] == AXES
    assert all(each.get("step_metric", "step") == "step" for each in metrics.values())
    assert {name for name, each in metrics.items() if each.get("summary", {}).get("min")} == {
        "train/loss", "val/nats_per_token", "val/bits_per_byte", "val/perplexity"
    }  # fmt: skip
    (line,) = [
        line for line in (run / "train.log").read_text().splitlines() if "wandb sync" in line
    ]
    assert Path(line.split()[-1]).is_dir()

    summary = json.loads(wandb_reads(Path(line.split()[-1]), "--summary"))["summary"]
    final = json.loads(strict_json(flat_results(training.summary(tmp_path / "a"))))
    assert {name: summary.get(name) for name in final} == final
    assert summary["train/loss"]["min"] == min(row["train/loss"] for row in expected[:-1])
    scores = [row["val/bits_per_byte"] for row in expected if "val/bits_per_byte" in row]
    assert summary["val/bits_per_byte"]["min"] == min(scores) == summary["best/bits_per_byte"]

    media = next((run / "wandb").glob("offline-run-*/files/media"))
    table = json.loads(next(media.glob("table/samples_*.json")).read_text())
    assert [step for step, _ in table["data"]] == [0, 4, 8, 12]
    text = (run / "samples.txt").read_text()
    assert text == "".join(f"=== step {step} ===\n{sample}\n\n" for step, sample in table["data"])
    assert "<html" in next(media.glob("html/report_*.html")).read_text()
    kinds = {each["type"]: each for each in of_type(session, "artifact")}
    assert {"report", "model"} <= kinds.keys()
    (best,) = kinds["model"]["manifest"]["contents"]
    assert best["path"] == "best-00000012.pt"


@pytest.mark.parametrize(
    ("signum", "every"),
    [(signal.SIGTERM, 30), (signal.SIGKILL, 30), (signal.SIGKILL, 100_000)],
    ids=["stopped", "killed", "killed before its first checkpoint"],
)
def test_a_run_that_ended_early_is_gone_on_with(
    signum: signal.Signals, every: int, tmp_path: Path
) -> None:
    """Nothing that was logged is lost, even if the training had no time to say goodbye; and after
    it is resumed, at once, every logger has every step of one and the same run."""
    # A smaller budget will do in the end: its schedule must not depend on it.
    more = ("model=bigram", "eval.every=1000", f"checkpoint.every={every}", "schedule=constant")
    more += ("logger=[local,wandb,tensorboard,trackio]",)
    folder = tmp_path / "a"
    ended = signalled(folder, signum, 40, *more, "train.steps=1000")
    assert ended == (143 if signum == signal.SIGTERM else -9)
    before = rows(folder)
    assert len(before) == 40

    begins = max(
        (int(path.stem[5:]) for path in folder.glob("run/checkpoints/step-*.pt")), default=0
    )
    assert bool(begins) == (every == 30)
    steps = begins + 5
    assert train(folder, *more, f"train.steps={steps}", "resume=true") == 0
    expected = defined(rows(folder))
    assert [row["step"] for row in expected] == list(range(steps + 1))
    first, second = wandb_sessions(folder / "run")
    assert [of_type(records, "run")[0]["run_id"] for records in (first, second)] == [
        (folder / "run/wandb/run-id").read_text()
    ] * 2
    begun, resumed = wandb_rows(first), wandb_rows(second)
    assert begun == defined(before)
    assert resumed == expected[resumed[0]["step"] :]
    # Repeated steps are the same again, but for the seconds: whichever a reader takes will do.
    again = {row["step"]: row | {"seconds": 0} for row in resumed[:-1]}
    for row in begun:
        assert again.get(row["step"], row | {"seconds": 0}) == row | {"seconds": 0}
    assert tensorboard_rows(folder / "run") == [as_tensorboard(row) for row in expected]
    assert trackio_rows() == expected
    assert all((folder / f"run/loggers/{name}.step").read_text() == f"{steps + 1}\n"
               for name in ("wandb", "tensorboard", "trackio"))  # fmt: skip


SIGNALLED = """
import os, sys
from pathlib import Path
from harness.training.run import run
from tests.small_runs import settings
folder, signum, at, *overrides = sys.argv[1:]
def on_batch(step, batch):
    if step == int(at):
        os.kill(os.getpid(), int(signum))
sys.exit(run(settings(Path(folder), *overrides), on_batch))
"""


def signalled(folder: Path, signum: int, step: int, *overrides: str) -> int:
    """A training in a process of its own that gets a signal as it begins a step; its exit code."""
    command = [sys.executable, "-c", SIGNALLED, str(folder), str(int(signum)), str(step)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])}
    return subprocess.run([*command, *overrides], cwd=REPOSITORY, env=environment).returncode


def test_a_logger_that_is_new_to_a_run_gets_all_of_it(tmp_path: Path) -> None:
    train(tmp_path / "a", *BIGRAM)
    more = ("train.steps=16", "resume=true", "logger=tensorboard")
    assert train(tmp_path / "a", *BIGRAM[:1], *BIGRAM[2:], *more) == 0
    expected = [as_tensorboard(row) for row in defined(rows(tmp_path / "a"))]
    assert len(expected) == 17
    assert tensorboard_rows(tmp_path / "a" / "run") == expected


def test_logged_in_a_run_is_online_and_a_resumed_one_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows that a killed training had sent already are the same ones again: W&B keeps the first
    of each step."""
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    folder, online = tmp_path / "a", (*BIGRAM, "schedule=constant", "logger=[local,wandb]")
    with serving() as (server, url):
        monkeypatch.setenv("WANDB_BASE_URL", url)
        assert train(folder, *online) == 0
        run = folder / "run"
        name = (run / "wandb" / "run-id").read_text()
        assert f"{url}/me/project/runs/{name}" in (run / "train.log").read_text()
        about = server.about[name]
        assert (about["displayName"], about["jobType"]) == ("run", "train")
        assert about["tags"] == ["text", "char", "bigram"]
        assert about["config"]["optimizer.lr"] == {"value": 0.001}
        assert about["program"] == "harness.train"
        first = defined(rows(folder))
        assert [clean(row) for row in server.history[name]] == first
        assert any(file.startswith("media/html/report") for file in server.files)
        assert {"report", "run_table"} <= set(server.artifacts)

        for path in (run / "checkpoints").iterdir():  # as if killed before there were any
            path.unlink()
        path = run / "summary.json"
        path.write_text(path.read_text().replace("finished", "running"))
        more = [each for each in online if "train.steps" not in each]
        assert train(folder, *more, "train.steps=16", "resume=true") == 0
        again = [clean(row) for row in server.history[name]]
        assert [row["step"] for row in again] == list(range(17))
        assert again[:13] == first
        assert again[13:] == defined(rows(folder))[13:]
        assert server.exit_codes == [0, 0]
    assert warnings(run) == []
    kept = [path.read_bytes() for path in run.rglob("*") if path.is_file()]
    assert not any(KEY.encode() in content for content in kept)


def clean(row: dict[str, Any]) -> dict[str, Any]:
    """A row that W&B's server got, without what W&B adds."""
    return {k: v for k, v in row.items() if not k.startswith(("_", "samples", "report"))}


def test_no_logger_is_imported_by_the_training_the_report_or_the_page() -> None:
    """Nor what only loggers need; choosing them is checked all the same."""
    code = """
import sys
import harness.live.__main__, harness.report.html.document, harness.training.run
from harness.cli.hydra_app import compose
from harness.config.settings import read_settings
from harness.training.checks import check_settings
check_settings(read_settings(compose(["model=bigram", "logger=[local,wandb,tensorboard,trackio]"])))
print(*sys.modules)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])}
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    loaded = {name.partition(".")[0] for name in ended.stdout.split()}
    assert "harness" in loaded
    assert not loaded & {
        *("wandb", "wandb_workspaces", "wandb_gql", "sentry_sdk", "git", "gitdb"),
        *("tensorboard", "trackio", "gradio_client", "orjson"),
    }


def test_a_missing_library_is_said_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"logger.trackio: needs the package trackio \("):
        train(tmp_path / "a", "logger=[local,trackio]")
    assert not (tmp_path / "a" / "run").exists()


# Loggers in trouble

TROUBLE = """
import os, signal, sys
from harness.loggers.base import Logger

class Fine(Logger):
    # Stores its rows as it is closed; dies before, if there is a file called killed.
    def open(self, folder, settings, step):
        self.folder, self.store = folder, folder / type(self).__name__
        rows = self.store.read_text().splitlines() if self.store.exists() else []
        self.rows = [row for row in rows if int(row) < step]
        self.write()
    def log(self, row): self.rows.append(str(row["step"]))
    def write(self): self.store.write_text("\\n".join(self.rows))
    def close(self, summary):
        if (self.folder / "killed").exists():
            os._exit(3)
        self.write()
    def wait(self):
        try: os.mkfifo(self.folder / "blocked")
        except FileExistsError: pass
        open(self.folder / "blocked").close()

class Open(Fine):
    def open(self, folder, settings, step): raise OSError("no such server")

class Log(Fine):
    def log(self, row): raise ValueError(row["step"])

class Close(Fine):
    def close(self, summary): raise KeyError("closing")

class Dead(Fine):
    def log(self, row):
        print("some library's last words", file=sys.stderr)
        os._exit(3)

class BlockedInOpen(Fine):
    def open(self, folder, settings, step):
        super().open(folder, settings, step)
        self.wait()

class BlockedInLog(Fine):
    def log(self, row):
        super().log(row)
        if row["step"] == 0: self.wait()

class BlockedInClose(Fine):
    def close(self, summary):
        self.wait()
        super().close(summary)

class SignalInOpen(BlockedInOpen):
    def open(self, folder, settings, step):
        os.kill(os.getppid(), signal.SIGTERM)
        super().open(folder, settings, step)

class SignalInClose(BlockedInClose):
    def close(self, summary):
        os.kill(os.getppid(), signal.SIGTERM)
        super().close(summary)

class Saying(Fine):
    def close(self, summary):
        super().close(summary)
        open(self.folder / "said", "w").close()

class Releasing(Fine):
    def close(self, summary):
        super().close(summary)
        open(self.folder / "blocked", "w").close()
"""


@pytest.fixture
def trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[str]]]:
    """trouble("Open", …): the overrides that choose those loggers."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "troubled_loggers.py").write_text(TROUBLE)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    yield lambda *names: [
        "trust=[troubled_loggers]",
        *(f"+logger.{name}._target_=troubled_loggers.{name}" for name in names),
    ]
    sys.modules.pop("troubled_loggers", None)


def logger_warnings(run: Path) -> list[str]:
    """Without what all of them say."""
    end = "; the numbers are in metrics.jsonl"
    found = [line.partition(" WARNING logger ")[2] for line in warnings(run)]
    assert all(line.endswith(end) for line in found if line)
    return sorted(line.removesuffix(end) for line in found if line)


def stored(run: Path, name: str) -> list[str]:
    return (run / name).read_text().split()


def release(run: Path) -> None:
    """Let a blocked logger go on, and wait until the loggers' process has ended."""
    (run / "blocked").open("w").close()
    wait_until((run / "loggers" / "lock").exists)  # it may not even have begun
    with (run / "loggers" / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


ALL = [str(step) for step in range(13)]  # the steps of BIGRAM


def test_a_logger_that_fails_is_warned_of_once_and_changes_nothing(
    tmp_path: Path, trouble: Callable[..., list[str]]
) -> None:
    train(tmp_path / "plain", *BIGRAM)
    assert train(tmp_path / "a", *BIGRAM, *trouble("Open", "Log", "Fine", "Close")) == 0
    assert training.trace(tmp_path / "a") == training.trace(tmp_path / "plain")
    assert logger_warnings(tmp_path / "a" / "run") == [
        "Close: failed (KeyError: 'closing')",
        "Log: failed (ValueError: 0)",
        "Open: failed (OSError: no such server)",
    ]
    assert stored(tmp_path / "a" / "run", "Fine") == ALL


def test_a_blocked_logger_does_not_keep_another_from_its_rows(
    tmp_path: Path, trouble: Callable[..., list[str]]
) -> None:
    """The one goes on only when the other has all rows."""
    assert train(tmp_path / "a", *BIGRAM, *trouble("BlockedInLog", "Releasing")) == 0
    run = tmp_path / "a" / "run"
    assert (stored(run, "BlockedInLog"), stored(run, "Releasing")) == (ALL, ALL)
    assert logger_warnings(run) == []


def test_a_logger_that_ends_the_process_is_named_with_those_it_takes_along(
    tmp_path: Path, trouble: Callable[..., list[str]]
) -> None:
    assert train(tmp_path / "a", *BIGRAM, *trouble("BlockedInLog", "Dead")) == 0
    expected = ["BlockedInLog, Dead: died (some library's last words)"]
    assert logger_warnings(tmp_path / "a" / "run") == expected


def test_a_logger_that_does_not_begin_is_waited_for_no_longer_than_agreed(
    tmp_path: Path, trouble: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Should it begin later, it gets all rows."""
    monkeypatch.setattr(followers, "START_UP", 0.1)
    train(tmp_path / "plain", *BIGRAM)
    assert train(tmp_path / "a", *BIGRAM, *trouble("BlockedInOpen")) == 0
    assert training.trace(tmp_path / "a") == training.trace(tmp_path / "plain")
    run = tmp_path / "a" / "run"
    assert logger_warnings(run) == ["BlockedInOpen: not ready after 0.1 s"]
    release(run)
    assert stored(run, "BlockedInOpen") == ALL


def test_loggers_wait_for_those_of_a_training_that_was_killed(
    tmp_path: Path, trouble: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which may still be storing its rows. The training does not wait."""
    monkeypatch.setattr(followers, "START_UP", 2)
    run = tmp_path / "a" / "run"
    assert train(tmp_path / "a", *BIGRAM, "schedule=constant") == 0
    (run / "loggers").mkdir()
    with (run / "loggers" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        more = ("model=bigram", "schedule=constant", "train.steps=16", "resume=true")
        assert train(tmp_path / "a", *more, *trouble("Saying")) == 0
        assert logger_warnings(run) == ["Saying: not ready after 2 s"]
        assert not (run / "Saying").exists()
        os.mkfifo(run / "said")
    (run / "said").open().close()
    assert stored(run, "Saying") == [str(step) for step in range(17)]


def test_a_logger_that_does_not_end_is_given_up(
    tmp_path: Path, trouble: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followers, "FINISHING", 0.1)
    assert train(tmp_path / "a", *BIGRAM, *trouble("BlockedInClose")) == 0
    expected = ["BlockedInClose: failed (not finished within 0.1 s)"]
    assert logger_warnings(tmp_path / "a" / "run") == expected


@pytest.mark.parametrize(
    ("name", "code"), [("SignalInOpen", 143), ("SignalInClose", 0)], ids=["in open", "in close"]
)
def test_a_signal_ends_the_waiting_for_a_logger(
    name: str,
    code: int,
    tmp_path: Path,
    trouble: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It comes from the logger, which then blocks: without it the waiting would have no end."""
    monkeypatch.setattr(followers, "LEAVING", 0.1)
    run = tmp_path / "a" / "run"
    assert train(tmp_path / "a", *BIGRAM, *trouble(name)) == code
    (line,) = logger_warnings(run)
    assert line == f"{name}: not finished yet, goes on without the training for up to 600 s"
    release(run)
    assert stored(run, name) == (ALL if code == 0 else stored(run, name))


def test_the_times_that_a_training_waits() -> None:
    """A start-up of 15 s; 10 s are what a training that is told to stop may take."""
    fresh = importlib.util.find_spec("harness.loggers.followers")
    assert fresh is not None
    assert fresh.loader is not None
    module = importlib.util.module_from_spec(fresh)
    fresh.loader.exec_module(module)
    assert (module.START_UP, module.LEAVING, module.FINISHING) == (15, 5, 60)


def test_what_a_logger_has_not_stored_when_it_is_killed_comes_again(
    tmp_path: Path, trouble: Callable[..., list[str]]
) -> None:
    """Libraries hold rows for a while, and drop at once those that will come again."""
    folder, killed = tmp_path / "a", tmp_path / "a" / "run" / "killed"
    chosen = ("model=bigram", "checkpoint.every=4", "schedule=constant", *trouble("Fine"))
    assert train(folder, *chosen, "train.steps=12") == 0
    (folder / "run" / "checkpoints" / "step-00000012.pt").unlink()
    killed.touch()
    assert train(folder, *chosen, "train.steps=16", "resume=true") == 0
    killed.unlink()
    assert train(folder, *chosen, "train.steps=20", "resume=true") == 0
    assert stored(folder / "run", "Fine") == [str(step) for step in range(21)]


def test_loggers_that_can_not_be_started_are_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert train(tmp_path / "a", *BIGRAM, "logger=[local,tensorboard,wandb]") == 0
    (line,) = logger_warnings(tmp_path / "a" / "run")
    assert line.startswith("tensorboard, wandb: can't be started (")


def test_a_server_that_never_answers_makes_wandb_go_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logged in, the server's port open, and nobody there. And the key is in no file of the run."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        assert train(tmp_path / "a", *BIGRAM, "logger=[local,wandb]") == 0
    run = tmp_path / "a" / "run"
    (line,) = warnings(run)
    assert "wandb: can't be reached (" in line
    assert line.endswith("going on offline")
    (session,) = wandb_sessions(run)
    assert wandb_rows(session) == defined(rows(tmp_path / "a"))
    files = [path for path in run.rglob("*") if path.is_file()]
    assert len(files) > 15
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


# The local log


def test_a_local_log_that_can_not_be_written_fails_at_once(tmp_path: Path) -> None:
    """A disk that is full, as a limit on the size of files makes it."""
    local = Local()
    local.open(tmp_path, settings(tmp_path / "a"), 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (25, hard))
    try:
        local.log({"step": 0, "a": 1})
        with pytest.raises(RunFailure, match=r"metrics.jsonl can't be written: File too large"):
            local.log({"step": 1, "a": 1})
        local.close({})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    (tmp_path / "b" / Local.FILE).mkdir(parents=True)
    with pytest.raises(RunFailure, match=r"metrics.jsonl can't be written: Is a directory"):
        Local().open(tmp_path / "b", settings(tmp_path / "a"), 0)


def test_a_damaged_line_takes_no_other_row_along(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What can be read stays; what is lost is said."""
    row = '{"step": %d, "tokens": 7}'
    lines = [(row % step).encode() for step in range(24)]
    lines[3] = lines[3][:9]
    lines[5] = b"\xff" + lines[5]
    lines[7:7] = [b"[1]", b"3", b"null", b'{"step": "x"}', b'{"step": 2.0}', b"{}", b""]
    path = tmp_path / Local.FILE
    path.write_bytes(b"\n".join(lines) + b'\n{"step": 24, "tok')
    local = Local()
    local.open(tmp_path, settings(tmp_path / "a"), 20)
    local.close({})
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    assert kept == [{"step": step, "tokens": 7} for step in range(20) if step not in (3, 5)]
    (line,) = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert "the rows of 2 of the first 20 steps are missing or damaged" in line
    assert "(the first: step 3)" in line

    # A line that a kill tore was of a step that comes again: nothing to say.
    caplog.clear()
    whole = "".join(row % step + "\n" for step in range(5))
    path.write_text(whole + '{"step": 5, "tok')
    local.open(tmp_path, settings(tmp_path / "a"), 5)
    local.close({})
    assert path.read_text() == whole
    assert not caplog.records


def test_a_file_that_grows_is_read_on_from_its_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / metrics.FILE
    path.write_bytes(b'{"step": 0}\n{"st')
    with path.open("rb") as reader, path.open("ab", buffering=0) as writer:
        assert list(metrics.whole_lines(reader)) == [b'{"step": 0}\n']
        assert list(metrics.whole_lines(reader)) == []
        writer.write(b'ep": 1}\n{"step": 2}\n')
        assert list(metrics.whole_lines(reader)) == [b'{"step": 1}\n', b'{"step": 2}\n']


TAIL = metrics.TAIL_BYTES


@pytest.mark.parametrize("long", [0, TAIL - 1, TAIL, 5 * TAIL])
def test_the_last_row_is_found_from_the_end(long: int, tmp_path: Path) -> None:
    path = tmp_path / metrics.FILE
    assert metrics.last_row(path) is None
    path.write_text('{"step": 3')
    assert metrics.last_row(path) is None
    path.write_text(f'{{"step": 3}}\n{{"step": 4, "a": "{"x" * long}"}}\n')
    assert (metrics.last_row(path) or {}).get("step") == 4
    with path.open("a") as file:
        file.write('[5]\n{"step": NaN}\n{"step": 6, "a')
    assert (metrics.last_row(path) or {}).get("step") == 4


def test_a_histogram_is_strict_json_too() -> None:
    kept = {"step": 3, "weights/a": Histogram([1, 2], [0.0, 0.5, 1.0])}
    assert metrics.parse_row(strict_json(kept).encode()) == kept
    row = {"step": 3, "train/loss": math.nan, "weights/a": Histogram([1, 2], [0.0, 0.5, math.inf])}
    expected = {"counts": [1, 2], "edges": [0.0, 0.5, None]}
    assert json.loads(strict_json(row)) == {"step": 3, "train/loss": None, "weights/a": expected}
    assert json.loads(strict_json({"a": Histogram([4], [0.0, 1.0])}))["a"]["counts"] == [4]
    with pytest.raises(TypeError, match="object can't be written as JSON"):
        strict_json({"a": object()})
