"""Which trial is best, by validation alone, and the file that says so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.common.errors import RunFailure
from harness.common.files import write_atomically
from harness.config.saved import load_settings
from harness.config.settings import Settings
from harness.runs import config, summary
from harness.tuning.plan import DECAY, INIT, RATE, Point

FILE, TABLE = "chosen.yaml", "trials.md"
ENDED = ("finished", "non_finite")
DEFAULT: Point = {RATE: 1e-3, INIT: "default", DECAY: 0.1}
"""Of models that no search chose for."""


@dataclass(frozen=True)
class Tried:
    """A finished training. nats: per token of validation; None: no score was finite."""

    stage: str
    model: str
    point: Point
    nats: float | None


def read_trials(folder: Path, stage: str) -> list[Tried]:
    """The finished trials of a stage, in the order of their folders."""
    paths = sorted(path.parent for path in folder.glob(f"*/{config.FILE}"))
    return [_read(path, stage) for path in paths if summary.status_of(path) in ENDED]


def _read(folder: Path, stage: str) -> Tried:
    settings, found = load_settings(folder / config.FILE), summary.read_summary(folder)
    score = found.val if found.status == "finished" else None
    nats = score.nats_per_token if score is not None else None
    return Tried(stage, settings.names.model, point_of(settings), nats)


def point_of(settings: Settings) -> Point:
    """The settings that are searched over."""
    optimizer = settings.optimizer
    return {
        RATE: float(optimizer["lr"]),
        INIT: settings.init,
        DECAY: float(optimizer.get("weight_decay", 0.0)),
    }


def best(trials: Iterable[Tried], model: str) -> Point:
    """The point of the model's best trial; of equals the first. Raises RunFailure if none has a
    score."""
    scored = [(trial.nats, trial) for trial in trials if trial.model == model]
    finite = [(nats, trial) for nats, trial in scored if nats is not None]
    if not finite:
        raise RunFailure(f"model={model}: none of its {len(scored)} trials has a finite score")
    return min(finite, key=lambda pair: pair[0])[1].point


def at_an_edge(trials: Sequence[Tried], model: str, chosen: Point) -> str | None:
    """A line if the chosen rate is the least or the largest of those tried."""
    rates = sorted({float(trial.point[RATE]) for trial in trials if trial.model == model})
    if chosen[RATE] not in (rates[0], rates[-1]):
        return None
    which = "smallest" if chosen[RATE] == rates[0] else "largest"
    return f"{model}: the chosen rate, {chosen[RATE]:g}, is the {which} that was tried"


def by_model(chosen: Mapping[str, Point], key: str) -> str:
    """One setting's values as a value that depends on the model."""
    values = {model: point[key] for model, point in chosen.items()} | {"default": DEFAULT[key]}
    return f"${{by_model:{{{', '.join(f'{model}: {value}' for model, value in values.items())}}}}}"


def write_choice(
    folder: Path, chosen: Mapping[str, Point], trials: Sequence[Tried], command: str
) -> None:
    """chosen.yaml, to be copied to conf/experiment, and the table of all trials, which are given in
    the order of their stages."""
    lines = [
        "# @package _global_",
        f"# Chosen on validation by: {command}",
        f'{INIT}: "{by_model(chosen, INIT)}"',
        "optimizer:",
        *(f'  {key.partition(".")[2]}: "{by_model(chosen, key)}"' for key in (RATE, DECAY)),
    ]
    write_atomically(folder / FILE, ("\n".join(lines) + "\n").encode())
    rows = [
        "| model | stage | rate | init | decay | validation, nats per token | |",
        "| --- | --- | ---: | --- | ---: | ---: | --- |",
        *(_row(trial, chosen) for trial in sorted(trials, key=lambda trial: trial.model)),
    ]
    write_atomically(folder / TABLE, ("\n".join(rows) + "\n").encode())


def _row(trial: Tried, chosen: Mapping[str, Point]) -> str:
    mark = "chosen" if chosen[trial.model] == trial.point else ""
    score = "not finite" if trial.nats is None else f"{trial.nats:.4f}"
    point = trial.point
    return (
        f"| {trial.model} | {trial.stage} | {point[RATE]:g} | {point[INIT]} | {point[DECAY]:g} "
        f"| {score} | {mark} |"
    )
