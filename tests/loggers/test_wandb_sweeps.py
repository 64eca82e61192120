"""The sweep files drive the entry point that a person does, and the page shows what they made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wandb_workspaces.reports.v2 as wr
import yaml

from harness.cli.hydra_app import compose
from harness.common.paths import REPOSITORY
from harness.config.saved import load_settings
from harness.config.settings import read_settings
from harness.loggers.flat import flat_results, flat_settings
from harness.loggers.wandb import AXES
from harness.report import workspace
from harness.training.checks import check_settings
from tests.conftest import Ended
from tests.small_runs import SMALL, settings, summary

FILES = sorted((REPOSITORY / "sweeps").glob("*.yaml"))


@pytest.fixture(autouse=True)
def _not_logged_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")


def ends(parameter: dict[str, Any]) -> list[Any]:
    """The values of a parameter; of a range both ends."""
    if "value" in parameter:
        return [parameter["value"]]
    return parameter.get("values") or [parameter["min"], parameter["max"]]


def jobs(sweep: dict[str, Any]) -> list[dict[str, Any]]:
    """A job, and those that differ from it in one parameter."""
    values = {name: ends(parameter) for name, parameter in sweep["parameters"].items()}
    first = {name: values[name][0] for name in values}
    return [first, *(first | {name: other} for name in values for other in values[name][1:])]


def agents_command(sweep: dict[str, Any], job: dict[str, Any]) -> list[str]:
    """As W&B's agent puts it together."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    macros = create_sweep_command_args({"args": {key: {"value": job[key]} for key in job}})
    macros |= {"env": ["/usr/bin/env"], "interpreter": [sys.executable]}
    words = []
    for word in create_sweep_command(list(sweep["command"])):
        words += macros[word[2:-1]] if word.startswith("${") and word.endswith("}") else [word]
    return words


@pytest.mark.long
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_job_of_a_sweep_file_can_be_trained(path: Path) -> None:
    sweep = yaml.safe_load(path.read_text())
    assert (REPOSITORY / sweep["program"]).is_file()
    assert sweep["method"] in ("grid", "random", "bayes")
    assert len(jobs(sweep)) > 3
    seen = set()
    for job in jobs(sweep):
        env, python, *module, _ = (words := agents_command(sweep, job))[:5]
        assert (env, python, *module) == ("/usr/bin/env", sys.executable, "-m", "harness.train")
        cfg = compose(words[4:])
        assert str(cfg.hydra.mode) in ("None", "RunMode.RUN")
        chosen = read_settings(cfg)
        if chosen.names.model not in seen:  # a model is built once, whatever its seed
            seen.add(chosen.names.model)
            check_settings(chosen)
        assert list(chosen.logger) == ["local", "wandb"]
        flat = flat_settings(chosen) | {"model": chosen.names.model}
        assert {key: flat[key] for key in job} == job


@pytest.mark.long
def test_a_job_of_an_agent_is_the_run_that_the_agent_named(tmp_path: Path) -> None:
    """With what the agent leaves in the environment; and it reports what the sweep minimizes."""
    from wandb.sdk.lib.config_util import save_config_file_from_dict

    sweep = yaml.safe_load((REPOSITORY / "sweeps" / "architectures.yaml").read_text())
    job = {"model": "bigram", "seed": 2}
    chosen = settings(tmp_path / "a")
    handed = tmp_path / "config.yaml"
    save_config_file_from_dict(str(handed), {key: {"value": job[key]} for key in job})
    own = [f"data.path={chosen.data['path']}", f"cache={chosen.cache}", f"run_dir={chosen.run_dir}"]
    environment = {
        "WANDB_SWEEP_ID": "sweep123", "WANDB_RUN_ID": "run12345", "WANDB_MODE": "offline",
        "WANDB_SWEEP_PARAM_PATH": str(handed),
    }  # fmt: skip
    ended = subprocess.run(
        [*agents_command(sweep, job), *SMALL, *own], cwd=REPOSITORY,
        env=os.environ | environment, capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    (session,) = (tmp_path / "a/run/wandb").glob("offline-run-*-run12345")
    read = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(session)]
    lines = subprocess.run(read, capture_output=True, text=True, check=True).stdout.splitlines()
    (run,) = [record["run"] for record in map(json.loads, lines) if record["type"] == "run"]
    assert (run["run_id"], run["sweep_id"]) == ("run12345", "sweep123")
    assert run["config"]["update"]["model"] == "bigram"
    assert run["config"]["update"]["seed"] == 2
    final = [record["summary"]["update"] for record in map(json.loads, lines)
             if record["type"] == "summary"]  # fmt: skip
    assert any(sweep["metric"]["name"] in update for update in final)


# The page


def test_the_page_draws_what_the_runs_log(finished_run: Path) -> None:
    page = workspace.workspace("entity", "project", "my-sweep")
    assert page.name == "Architectures of my-sweep"
    assert page.runset_settings.filters == "Metric(\"Group\") == 'my-sweep'"
    logged = {name for line in (finished_run / "metrics.jsonl").read_text().splitlines()
              for name in json.loads(line)}  # fmt: skip
    results = flat_results(summary(finished_run.parent))
    panels = [panel for section in page.sections for panel in section.panels]
    curves = [panel for panel in panels if isinstance(panel, wr.LinePlot)]
    points = [panel for panel in panels if isinstance(panel, wr.ScatterPlot)]
    bars = [panel for panel in panels if isinstance(panel, wr.BarPlot)]
    assert len(curves) + len(points) + len(bars) == len(panels)
    for curve in curves:
        assert {curve.x, *curve.y} <= logged
        assert curve.groupby == wr.Config("names.model.value")
    assert {p.x for p in curves if p.y == ["val/bits_per_byte"]} == set(AXES)
    assert {point.x.name for point in points} >= {"train/flops", "parameters/total"}
    for point in points:
        assert {point.x.name, point.y.name} <= results.keys()
    for bar in bars:
        assert set(bar.metrics) <= results.keys()
    assert ["train/tokens_per_second"] in [bar.metrics for bar in bars]
    # The key of a flat setting, as W&B's own library says it.
    assert "names.model" in flat_settings(load_settings(finished_run / "config.yaml"))
    assert page.runset_settings.groupby == [wr.Config("names.model.value")]


@pytest.mark.usefixtures("_not_logged_in")
def test_the_page_needs_an_account(command: Callable[..., Ended]) -> None:
    ended = command("dashboard")
    assert ended.code == 2
    assert ended.err == ("error: not logged in to W&B: `wandb login` first\n")


def test_a_wrong_option_of_the_page_is_one_line(command: Callable[..., Ended]) -> None:
    ended = command("dashboard", "--projekt", "x")
    assert (ended.code, len(ended.err.splitlines())) == (2, 1)
    assert "Did you mean --project?" in ended.err


def test_settings_and_results_are_flat() -> None:
    found = flat_results(
        {"status": "finished", "val": {"a": 1}, "best": None, "test": {"b": {"c": 2}}}
    )
    assert found == {"status": "finished", "best": None, "test/b/c": 2}
