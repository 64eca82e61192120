"""Every number reaches every logger, also after a resume and by a logger that is new to a run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.common.errors import UsageError
from harness.common.paths import REPOSITORY
from harness.common.rows import strict_json
from harness.config.saved import load_settings
from harness.loggers import build
from harness.loggers.flat import flat_results, flat_settings
from tests import small_runs as training
from tests.loggers.stored_rows import (
    BIGRAM,
    KEY,
    as_tensorboard,
    as_trackio,
    as_wandb,
    defined,
    of_type,
    tensorboard_rows,
    trackio_rows,
    wandb_reads,
    wandb_rows,
    wandb_sessions,
    warnings,
)
from tests.loggers.wandb_server import serving
from tests.small_runs import rows, train

GPT_SMALL = ("model=gpt", "model.n_layer=1", "model.n_head=2", "model.n_embd=16", "train.steps=12")
AXES = ["step", "tokens", "bytes", "flops", "seconds"]


def test_every_number_reaches_every_logger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HF_TOKEN", "hf_aSecretOfTheEnvironment")
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
    files = [path for path in run.rglob("*") if path.is_file()]
    assert not [path for path in files if b"aSecretOfTheEnv" in path.read_bytes()]

    # What W&B's pages are made of.
    (about,) = of_type(session, "run")
    names = {name: about.get(name) for name in ("display_name", "job_type", "project", "run_group")}
    assert names == {
        "display_name": "run", "job_type": "train", "project": "language-model-zoo",
        "run_group": "a",
    }  # fmt: skip
    assert about["tags"] == ["corpus", "char", "gpt", "mine"]
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
    assert summary["certificate"] == "passed, sampled"
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
    [
        pytest.param(signal.SIGTERM, 30, id="stopped", marks=pytest.mark.long),
        pytest.param(signal.SIGKILL, 30, id="killed", marks=pytest.mark.long),
        pytest.param(
            signal.SIGKILL, 100_000, id="killed before its first checkpoint", marks=pytest.mark.long
        ),
    ],
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
        assert about["tags"] == ["corpus", "char", "bigram"]
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
        (run / "digests.sha256").unlink()  # a run that was killed has none
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


@pytest.mark.long
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
