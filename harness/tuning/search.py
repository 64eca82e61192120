"""The search, from its plan to the seeds of what it chose."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from harness.cli.hydra_app import compose
from harness.common.errors import RunFailure, UsageError
from harness.common.files import write_atomically, writing
from harness.common.rows import strict_json
from harness.config.settings import Settings, read_settings, require_trusted
from harness.data.dataset import require_whole_validation
from harness.training.run import load_dataset
from harness.training.sweep_jobs import CANDIDATES
from harness.tuning import sweeps
from harness.tuning.choice import (
    FILE,
    Tried,
    at_an_edge,
    best,
    read_trials,
    write_choice,
)
from harness.tuning.plan import (
    DECAY,
    INIT,
    RATE,
    STAGES,
    PlannedCost,
    Point,
    measure,
    plan_lines,
    start,
    trials_each,
)
from harness.tuning.progress import SearchProgress

PLAN = "plan.json"
CHOSEN = "chosen"  # the folder of the seeds
# What the search sets itself.
OWN = (RATE, INIT, DECAY, "model", "seed", "resume", "run_dir", "checkpoint_dir", "fork_from")


def search(
    models: Sequence[str],
    shared: Sequence[str],
    folder: Path,
    seeds: int,
    workers: sweeps.Workers,
    run: sweeps.Run | None = None,
    *,
    table: bool = True,
    only_plan: bool = False,
) -> int:
    """Print the plan, try, choose, train what was chosen with the first `seeds` seeds, print their
    table; returns the exit code. What is finished in `folder` is not trained again.

    Raises UsageError for settings that can't be searched, RunFailure for a model without a score.
    """
    settings = {model: _settings(model, shared) for model in models}
    at_a_time = sweeps.at_a_time(workers, next(iter(settings.values())).device)
    chosen = {model: start(each) for model, each in settings.items()}
    command = _command(models, shared)
    costs = planned_costs(folder, command, settings)
    each = trials_each(next(iter(chosen.values())))
    for line in plan_lines(costs, each, seeds, at_a_time):
        print(line, flush=True)
    if only_plan:
        return 0
    progress = SearchProgress(folder, costs, each + seeds, at_a_time)
    run = run or partial(sweeps.run_sweep, watch=progress.look)
    trials: list[Tried] = []
    for stage in STAGES:
        tried = {model: stage.points(point) for model, point in chosen.items()}
        here, code = folder / stage.name, 0
        if _missing(found := read_trials(here, stage.name), tried):
            with writing(here):
                here.mkdir(parents=True, exist_ok=True)
            write_atomically(here / CANDIDATES, b"")  # validation chooses: test is not shown
            code = run(sweeps.arguments(tried, [0], shared, here, workers), False)
            found = read_trials(here, stage.name)
        trials += _of_this_search(found, tried, code)
        chosen = {model: best(trials, model) for model in models}
        print(f"{stage.name}: {_words(chosen, stage.key)}", flush=True)
    write_choice(folder, chosen, trials, command)
    print(f"{folder / FILE} written", file=sys.stderr)
    for model in models:
        if edge := at_an_edge(trials, model, chosen[model]):
            print(edge, flush=True)
    if not seeds:
        return 0
    only = {model: [point] for model, point in chosen.items()}
    return run(sweeps.arguments(only, range(seeds), shared, folder / CHOSEN, workers), table)


def planned_costs(
    folder: Path, command: str, settings: Mapping[str, Settings], kind: str = "search"
) -> dict[str, PlannedCost]:
    """What a training with each settings takes, measured when the search (or another `kind`) begins
    and kept in its folder. Raises UsageError if that holds another one, or other files."""
    path = folder / PLAN
    if path.exists():
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            before = str(saved["command"])
            costs = {
                model: PlannedCost(float(cost["flops"]), float(cost["seconds"]))
                for model, cost in saved["costs"].items()
            }
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise UsageError(f"{path} is damaged: without it, all is planned anew") from error
        if before != command:
            raise UsageError(f"{folder} holds another {kind}: {before}")
        return costs
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} holds other files and no {kind}")
    dataset = load_dataset(next(iter(settings.values())))
    require_whole_validation(dataset)
    costs = {model: measure(each, dataset) for model, each in settings.items()}
    plain = {"command": command, "costs": {model: asdict(cost) for model, cost in costs.items()}}
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, strict_json(plain).encode())
    return costs


def _settings(model: str, shared: Sequence[str]) -> Settings:
    for override in shared:
        key = override.partition("=")[0].lstrip("+~")
        if key in OWN or key.startswith(("hydra", "sweep.")):
            raise UsageError(f"{key} is set by the search itself")
    settings = read_settings(compose([f"model={model}", *shared]))
    require_trusted(settings)
    return settings


def _of_this_search(
    found: Sequence[Tried], tried: dict[str, list[Point]], code: int
) -> list[Tried]:
    """The stage's trials, one for each point. Raises RunFailure if some have not ended."""
    if missing := _missing(found, tried):
        raise RunFailure(
            f"{missing} trials have not ended (exit code {code} of the sweep); the same command "
            "goes on"
        )
    return [_of(found, model, point) for model, points in tried.items() for point in points]


def _missing(found: Sequence[Tried], tried: dict[str, list[Point]]) -> int:
    ended = [(trial.model, trial.point) for trial in found]
    return sum((model, point) not in ended for model in tried for point in tried[model])


def _of(found: Sequence[Tried], model: str, point: Point) -> Tried:
    return next(trial for trial in found if (trial.model, trial.point) == (model, point))


def _words(chosen: dict[str, Point], key: str) -> str:
    return ", ".join(f"{model} {key}={point[key]}" for model, point in chosen.items())


def _command(models: Sequence[str], shared: Sequence[str]) -> str:
    return shlex.join(["python", "-m", "harness.search", f"model={','.join(models)}", *shared])
