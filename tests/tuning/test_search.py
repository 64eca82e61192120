"""One search: the same budget for every model, resumed without a trace, chosen by validation."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from harness.cli.hydra_app import compose
from harness.cli.tool import Parser
from harness.common.errors import RunFailure, UsageError
from harness.config.saved import load_settings
from harness.runs.summary import read_summary, status_of
from harness.tuning import plan, search, sweeps
from harness.tuning.choice import Tried, at_an_edge, best, read_trials
from harness.tuning.plan import DECAY, INIT, RATE, STAGES, Stage, plan_lines, start
from harness.tuning.sweeps import Run, arguments
from tests.conftest import Ended
from tests.small_runs import SMALL
from tests.training.sweeps import contents
from tests.waiting import GUARD, wait_until

FEW = (
    Stage("1-rate", RATE, (1e-2, 1e-1)),
    Stage("2-init", INIT, ("default", "xavier")),
)
MODELS = ("bigram", "mlp")


@pytest.fixture
def shared(small_text: Path, tmp_path: Path) -> list[str]:
    return [*SMALL, f"data.path={small_text}", f"cache={tmp_path / 'cache'}", "train.steps=4"]


@pytest.fixture(autouse=True)
def few_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (plan, search):
        monkeypatch.setattr(module, "STAGES", FEW)


@pytest.fixture
def run(command: Callable[..., Ended]) -> Run:
    def run(arguments: Sequence[str], table: bool) -> int:
        return command("train", *arguments).code

    return run


def trials(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("[1-9]-*/*/config.yaml"))


def search_two(folder: Path, shared: list[str], run: Run, seeds: int = 0) -> int:
    return search.search(MODELS, shared, folder, seeds, 1, run)


@pytest.mark.long
def test_a_search_is_fair_goes_on_and_its_choice_can_be_used(
    tmp_path: Path, shared: list[str], run: Run
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert search_two(whole, shared, run, seeds=1) == 0

    # The same number of trainings for each model, and the same budget for each training.
    settings = [load_settings(path / "config.yaml") for path in trials(whole)]
    for model in MODELS:
        own = [each for each in settings if each.names.model == model]
        assert len(own) == 3 == plan.trials_each(start(own[0]))
        assert len({(each.optimizer["lr"], each.init) for each in own}) == 3
    assert len({(str(each.train), str(each.eval), each.seed) for each in settings}) == 1
    # Their test scores are not shown, but for what was chosen.
    assert all(read_summary(path).candidate for path in trials(whole))
    chosen = [path.parent for path in (whole / "chosen").glob("*/summary.json")]
    assert [bool(read_summary(path).candidate) for path in chosen] == [False] * len(MODELS)

    # As left by one that was killed in its second stage: only what is missing is trained, and the
    # choice is the same.
    shutil.copytree(whole, cut)
    for name in ("chosen", "2-init/0-bigram-char-s0"):
        shutil.rmtree(cut / name)
    for name in ("chosen.yaml", "trials.md"):
        (cut / name).unlink()
    before = {path: contents(path) for path in trials(cut)}
    assert search_two(cut, shared, run) == 0
    assert {path: contents(path) for path in before} == before
    for name in ("chosen.yaml", "trials.md"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()

    # Another search in the same folder would mix the two.
    with pytest.raises(UsageError, match="holds another search"):
        search_two(cut, [*shared, "train.clip=2.0"], run)

    # The file is an experiment: each model's own values, and the defaults for all others.
    experiment = OmegaConf.load(whole / "chosen.yaml")
    found = [trial for stage in FEW for trial in read_trials(whole / stage.name, stage.name)]
    for model in MODELS:
        cfg = OmegaConf.merge(compose([f"model={model}"]), experiment)
        point = best(found, model)
        assert (cfg.optimizer.lr, cfg.init) == (point[RATE], point[INIT])
    other = OmegaConf.merge(compose(["model=gpt"]), experiment)
    assert (other.optimizer.lr, other.init, other.optimizer.weight_decay) == (1e-3, "default", 0.1)

    # Test is not read: with its scores turned round the choice is the same.
    for path in trials(whole):
        summary = json.loads((path / "summary.json").read_text())
        summary["test"]["nats_per_token"] = -summary["test"]["nats_per_token"]
        (path / "summary.json").write_text(json.dumps(summary))
    again = [trial for stage in FEW for trial in read_trials(whole / stage.name, stage.name)]
    assert again == found


def test_every_model_gets_the_same_trials_in_every_stage() -> None:
    """Also after they have chosen differently."""
    now = {
        "gpt": {RATE: 1e-3, INIT: "default", DECAY: 0.1},
        "mlp": {RATE: 1e-1, INIT: "default", DECAY: 0.1},
    }
    for stage in STAGES:
        tried = {model: stage.points(point) for model, point in now.items()}
        assert len(tried["gpt"]) == len(tried["mlp"]) >= 1
        for model, points in tried.items():
            assert now[model] not in points or stage.key == RATE  # nothing twice
        words = arguments(tried, [0], [], Path("x"), 1)
        for at, point in enumerate(tried["mlp"]):
            (values,) = [word.partition("=")[2] for word in words if word.startswith(stage.key)]
            assert f"mlp: {point[stage.key]}" in values.split("','")[at]


def test_the_plan_counts_trainings_flops_and_time() -> None:
    costs = {"a": plan.PlannedCost(1e9, 60.0), "b": plan.PlannedCost(3e9, 30.0)}
    text = "\n".join(plan_lines(costs, 4, 2, 3))
    # (4 + 2) trainings of each; 90 seconds for a pair, three at a time.
    assert "12 trainings, 2.4e+10 training FLOPs, about 3.0 minutes with 3 at a time" in text


def test_without_a_finite_score_there_is_no_choice() -> None:
    point = {RATE: 1.0, INIT: "default", DECAY: 0.0}
    bad, good = Tried("1-rate", "gpt", point, None), Tried("1-rate", "gpt", point | {RATE: 2}, 3.0)
    assert best([bad, good], "gpt") == good.point
    assert best([bad, good, replace(good, nats=2.5, point=point)], "gpt") == point
    with pytest.raises(RunFailure, match="model=gpt: none of its 1 trials"):
        best([bad], "gpt")


def test_a_rate_at_the_edge_is_named() -> None:
    point = {RATE: 0.1, INIT: "default", DECAY: 0.0}
    tried = [Tried("1-rate", "gpt", point | {RATE: rate}, 1.0) for rate in (0.1, 0.2, 0.3)]
    assert at_an_edge(tried, "gpt", point | {RATE: 0.2}) is None
    assert "the smallest" in str(at_an_edge(tried, "gpt", point | {RATE: 0.1}))
    assert "the largest" in str(at_an_edge(tried, "gpt", point | {RATE: 0.3}))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train.steps=5"], "name the models, each once"),
        (["model=gpt,gpt"], "name the models, each once"),
        (["model=gtp"], "Did you mean gpt"),
        (["model=gpt", "optimizer.lr=1e-3"], "optimizer.lr is set by the search itself"),
        (["model=gpt", "hydra.sweep.dir=x"], "hydra.sweep.dir is set by the search itself"),
        (["model=gpt", "optimizer.lrr=1"], "optimizer.lrr"),
        (["model=bigram", "train.flops=9e9"], "train.flops never ends: bigram costs no FLOPs"),
        (["model=gpt", "--seeds", "-1"], "--seeds -1 must be at least 0"),
        (["model=gpt", "--workers", "0"], "--workers 0 must be at least 1"),
        (["model=gpt", "--workers", "gpu:1"], "--workers=gpu is not one of auto, cpu"),
        (["model=gpt", "--workers", "cuda:99"], "cuda:99 is not on this machine"),
        (["model=gpt", "sweep.devices=2"], "sweep.devices is set by the search itself"),
        (["model=ngram"], "counts"),
        (["model=gpt", "data.split=[0.9,0,0.1]"], "leaves none"),
        (["model=gpt", "eval.part=0.5"], "eval.part=0.5 leaves a part of it"),
    ],
)
def test_a_mistake_is_one_line(
    command: Callable[..., Ended], small_text: Path, words: list[str], message: str, tmp_path: Path
) -> None:
    text = ["data=text", f"data.path={small_text}"]
    ended = command("search", *words, *text, "--folder", tmp_path / "search")
    assert ended.code == 2
    assert message in ended.err
    assert len(ended.err.splitlines()) == 1
    assert not (tmp_path / "search").exists()


@pytest.mark.parametrize(
    ("option", "setting", "count"),
    [
        ("1", [], 1),
        ("3", ["sweep.devices=3"], 3),
        ("auto", ["sweep.devices=auto"], 2),
        ("cores", ["sweep.devices=cores"], 1),  # there are GPUs: one after another
        ("cuda:1", ["sweep.devices=[cuda:1]"], 1),
        ("cuda:0,cuda:1", ["sweep.devices=[cuda:0,cuda:1]"], 2),
    ],
)
def test_several_at_a_time(
    option: str, setting: list[str], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    parser = Parser()
    parser.add_workers()
    workers = parser.parse_args(["--workers", option]).workers
    assert sweeps.at_a_time(workers, "auto") == count
    tried = {"gpt": [{RATE: 1e-3}]}
    words = arguments(tried, [0, 1], [], Path("x"), workers)
    assert [word for word in words if word.startswith("sweep.")] == setting


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"command": "x"}', '{"command": "x", "costs": {"a": 1}}']
)
def test_a_damaged_plan_is_named(
    command: Callable[..., Ended], tmp_path: Path, content: str
) -> None:
    (tmp_path / "plan.json").write_text(content)
    ended = command("search", "model=gpt", "--folder", tmp_path)
    assert ended.code == 2
    assert ended.err == f"error: {tmp_path}/plan.json is damaged: without it, all is planned anew\n"


def test_a_folder_with_other_files_is_left_alone(
    command: Callable[..., Ended], tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    ended = command("search", "model=gpt", "--folder", tmp_path)
    assert (ended.code, "holds other files" in ended.err) == (2, True)


@pytest.mark.long
def test_a_killed_command_goes_on_to_the_same_choice(tmp_path: Path, shared: list[str]) -> None:
    """With all its stages and in processes of its own: SIGKILL leaves no time to say anything."""

    def started(folder: Path) -> subprocess.Popen[bytes]:
        words = ["model=bigram,mlp", *shared, "--folder", str(folder), "--seeds", "1"]
        return subprocess.Popen([sys.executable, "-m", "harness.search", *words], cwd=tmp_path)

    def statuses() -> list[str | None]:
        return [status_of(path.parent) for path in (tmp_path / "cut").glob("*/*/config.yaml")]

    assert started(tmp_path / "whole").wait(GUARD) == 0
    killed = started(tmp_path / "cut")
    wait_until(lambda: "finished" in statuses(), lambda: killed.poll() is None)
    killed.kill()
    killed.wait()
    wait_until(lambda: "running" not in statuses())  # its trainings leave, too
    assert started(tmp_path / "cut").wait(GUARD) == 0
    for name in ("chosen.yaml", "trials.md"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert len(trials(tmp_path / "cut")) == 2 * 7
