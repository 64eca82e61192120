"""An ablation: a base and changes of it, each added alone and each left out of all."""

from __future__ import annotations

import itertools
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from harness.cli.hydra_app import compose
from harness.common.errors import RunFailure, UsageError
from harness.common.files import write_atomically, writing
from harness.config import own_class
from harness.config.settings import Settings, read_settings, require_trusted
from harness.config.spelling import has_several, override
from harness.data.corpus import Corpus
from harness.report.html.document import Asked, write_report
from harness.report.records.groups import Group
from harness.report.records.runs import RunRecord, find_runs
from harness.report.statistics.effects import Ablation, Comparand, find_effects
from harness.report.statistics.ranking import Comparison, compare_runs
from harness.report.text.effects_terminal import print_effects
from harness.report.where import TokenReader
from harness.runs.summary import FILE
from harness.training.sweep_jobs import CANDIDATES
from harness.tuning import sweeps
from harness.tuning.plan import DECAY, INIT, RATE, PlannedCost, start, trials_each
from harness.tuning.search import CHOSEN, planned_costs, search

BASE, ALL = "base", "all"
ADDED, LEFT_OUT, AT_ONCE = "added", "left out", "all at once"
# What the ablation sets itself.
OWN = (
    *("seed", "resume", "run_dir", "checkpoint_dir", "hydra", "sweep", "experiment", "trust"),
    "logger",
)


@dataclass(frozen=True)
class Variant:
    """name: of its folder. overrides: for harness.train."""

    name: str
    overrides: tuple[str, ...]
    settings: Settings


@dataclass(frozen=True)
class AblationPlan:
    """variants: those to train. comparands: which of them are compared."""

    base: str
    variants: tuple[Variant, ...]
    comparands: tuple[Comparand, ...]


def plan_ablation(base: str, changes: Sequence[str]) -> AblationPlan:
    """base: a model's name, or settings in quotes; changes: settings, several in quotes.

    Raises UsageError for settings that can't be used, for a change that changes nothing, and for
    two changes of one setting, which could not be made together.
    """
    own = _words(base)
    if len(own) == 1 and "=" not in own[0]:
        own = own_class.chosen(own[0], [])
    parts = [_words(change) for change in changes]
    _require_apart(changes, parts)
    count = len(parts)
    chosen = {BASE: set[int]()} | {f"add-{n + 1}": {n} for n in range(count)}
    if count > 1:
        chosen[ALL] = set(range(count))
    if count > 2:  # of two, one left out is the other added
        chosen |= {f"without-{n + 1}": set(range(count)) - {n} for n in range(count)}
    files: dict[tuple[str, ...], DictConfig] = {}
    variants = [
        _variant(name, own, [parts[n] for n in sorted(those)], files)
        for name, those in chosen.items()
    ]
    _require_changes(changes, variants)
    _require_different(variants)
    comparands = [
        Comparand(change, ADDED, BASE, f"add-{n + 1}") for n, change in enumerate(changes)
    ]
    if count > 1:
        others = [f"without-{n + 1}" if count > 2 else f"add-{2 - n}" for n in range(count)]
        comparands += [
            Comparand(change, LEFT_OUT, other, ALL)
            for change, other in zip(changes, others, strict=True)
        ]
        comparands.append(Comparand("all changes", AT_ONCE, BASE, ALL))
    return AblationPlan(base, tuple(variants), tuple(comparands))


def _words(text: str) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{text!r}: {error}") from error
    if not words:
        raise UsageError("a change is settings: model.norm=rms_norm, or several in quotes")
    for word in words:
        if _key(word).partition(".")[0] in OWN:
            raise UsageError(f"{word}: the ablation chooses {_key(word).partition('.')[0]}")
    return words


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0]


def _require_apart(changes: Sequence[str], parts: Sequence[Sequence[str]]) -> None:
    setters: dict[str, str] = {}
    for change, words in zip(changes, parts, strict=True):
        for word in words:
            if "=" not in word:
                raise UsageError(f"{change}: {word} is no setting, KEY=VALUE")
            if has_several(word):
                raise UsageError(f"{word} has several values: give each as a change of its own")
            if _key(word) in setters:
                raise UsageError(
                    f"{setters[_key(word)]} and {change} both set {_key(word)}, and are to be made "
                    "together, too: choose one"
                )
        setters |= dict.fromkeys(map(_key, words), change)


def _variant(
    name: str,
    base: Sequence[str],
    changes: Sequence[Sequence[str]],
    files: dict[tuple[str, ...], DictConfig],
) -> Variant:
    """A change of a setting that the base names takes its place. files: what has been read."""
    changed = [word for words in changes for word in words]
    keys = set(map(_key, changed))
    overrides = [*(word for word in base if _key(word) not in keys), *changed]
    settings = read_settings(compose(overrides, known=files))
    require_trusted(settings)
    return Variant(name, tuple(overrides), settings)


def _require_changes(changes: Sequence[str], variants: Sequence[Variant]) -> None:
    base = variants[0].settings
    if several := base.build("data", Corpus).several:
        raise UsageError(f"an ablation is on one long text, and these data are {several}")
    for change, variant in zip(changes, variants[1:], strict=False):
        if variant.settings.plain() == base.plain():
            raise UsageError(f"{change} changes nothing: the base has it already")
        if variant.settings.train.budget != base.train.budget:
            raise UsageError(f"{change}: the budget must be that of the base")
        sizes = [_tokens_of_step(each) for each in (base, variant.settings)]
        if base.train.budget[0] == "steps" and sizes[0] != sizes[1]:
            raise UsageError(
                f"{change}: a step has {sizes[1]} tokens, and {sizes[0]} of the base; give the "
                "budget by train.tokens"
            )
        ours, theirs = base.plain(), variant.settings.plain()
        for plain in (ours, theirs):
            plain["data"].pop("order", None)  # in which the rows come, of the same text
        for group in ("data", "eval", "tokenizer"):
            if theirs[group] != ours[group]:
                raise UsageError(f"{change}: {group} must be that of the base, to be compared")


def _require_different(variants: Sequence[Variant]) -> None:
    for one, other in itertools.combinations(variants, 2):
        if one.settings.plain() == other.settings.plain():
            raise UsageError(
                f"the variants {one.name} and {other.name} would have the same settings: one "
                "change makes another one void"
            )


def _tokens_of_step(settings: Settings) -> int:
    return settings.train.batch_size * settings.train.accumulate * settings.train.seq_len


def _require_searchable(plan: AblationPlan) -> None:
    for variant in plan.variants:
        for word in variant.overrides:
            if _key(word) in (RATE, INIT, DECAY):
                raise UsageError(f"{word}: --search chooses it")
            if _key(word) == own_class.TARGET:
                raise UsageError(f"{word}: --search is for models of conf/model")


def ablate(
    plan: AblationPlan,
    folder: Path,
    seeds: int,
    workers: sweeps.Workers,
    searched: bool,
    run: sweeps.Run | None = None,
) -> int:
    """Print the plan, train every variant with the first `seeds` seeds, and report the effects;
    returns the exit code. What is finished in `folder` is not trained again.

    searched: first search each variant's rate, initialization and decay, with the same trials.
    Raises UsageError for settings that can't be trained so, RunFailure if no base has a score.
    """
    at_a_time = sweeps.at_a_time(workers, plan.variants[0].settings.device)
    if searched:
        _require_searchable(plan)
    trials = trials_each(start(plan.variants[0].settings)) if searched else 0
    budget = (
        f"each variant was searched with {trials} trials and trained with {seeds} seeds"
        if searched
        else f"no search: every variant has the base's rate and decay; {seeds} seeds each"
    )
    command = _command(plan, searched)
    settings = {variant.name: variant.settings for variant in plan.variants}
    costs = planned_costs(folder, command, settings, "ablation")
    print(plan_line(costs, trials, seeds, at_a_time), flush=True)
    code = 0
    for variant in plan.variants:
        print(f"{variant.name}: {' '.join(variant.overrides)}", flush=True)
        train = _train_searched if searched else _train
        code = max(code, train(variant, folder / variant.name, seeds, workers, run))
    return max(
        code, report(plan, folder, seeds, budget, f"{command} --folder {shlex.quote(str(folder))}")
    )


def plan_line(costs: Mapping[str, PlannedCost], trials: int, seeds: int, workers: int) -> str:
    """The plan in words."""
    jobs = trials + seeds
    flops = sum(cost.flops for cost in costs.values()) * jobs
    hours = sum(cost.seconds for cost in costs.values()) * jobs / workers / 3600
    each = f"{trials} trials and {seeds} seeds" if trials else f"{seeds} seeds, no search"
    return (
        f"{len(costs)} variants, each {each}: {jobs * len(costs)} trainings, {flops:.3g} training "
        f"FLOPs, about {hours:.2g} hours with {workers} at a time, by speeds measured as it began"
    )


def _train(
    variant: Variant, folder: Path, seeds: int, workers: sweeps.Workers, run: sweeps.Run | None
) -> int:
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / CANDIDATES, b"")  # validation is read, and test is not shown
    return (run or sweeps.run_sweep)(
        [
            "-m", *variant.overrides, f"seed={','.join(map(str, range(seeds)))}",
            override("hydra.sweep.dir", str(folder)), "resume=auto", *sweeps.on_devices(workers),
        ],
        False,
    )  # fmt: skip


def _train_searched(
    variant: Variant, folder: Path, seeds: int, workers: sweeps.Workers, run: sweeps.Run | None
) -> int:
    shared = [word for word in variant.overrides if _key(word) != "model"]
    return search([variant.settings.names.model], shared, folder, seeds, workers, run, table=False)


def _command(plan: AblationPlan, searched: bool) -> str:
    changes = [each.change for each in plan.comparands if each.how == ADDED]
    asked = ["--search"] * searched
    return shlex.join(["python", "-m", "harness.ablate", plan.base, *changes, *asked])


def report(plan: AblationPlan, folder: Path, seeds: int, budget: str, command: str) -> int:
    """Print the effects and write report.html; 1 if a seed of a variant is missing."""
    records = {variant.name: _records(variant, folder / variant.name) for variant in plan.variants}
    comparison = compare_runs([run for runs in records.values() for run in runs], "val")
    folders = {name: {run.folder for run in runs} for name, runs in records.items()}
    groups = {name: group for name, own in folders.items() if (group := _group_of(own, comparison))}
    if len(groups) < 2:
        raise RunFailure(f"{folder}: fewer than two variants have a validation score")
    reader = TokenReader(list(groups.values()), "val", [])
    losses = {
        name: [reader.losses(run).full for run in group.counted if run.folder in folders[name]]
        for name, group in groups.items()
    }
    missing = tuple(
        f"{variant.name}: {len(losses.get(variant.name, ()))} of {seeds} seeds have a score"
        for variant in plan.variants
        if len(losses.get(variant.name, ())) < seeds
    )
    effects = find_effects(losses, reader.tokens, plan.comparands)
    found = Ablation(plan.base, effects, budget, reader.split.bytes, missing)
    out = folder / "report.html"
    write_report(comparison, out, [folder], Asked(ablation=found), command)
    print_effects(found, sys.stdout)
    print(f"{out} written", file=sys.stderr)
    return int(bool(missing))


def _records(variant: Variant, folder: Path) -> list[RunRecord]:
    """Of the trainings that count: not of a search's trials."""
    chosen = folder / CHOSEN
    place = chosen if chosen.exists() else folder
    return find_runs([place]) if any(place.rglob(FILE)) else []


def _group_of(folders: set[Path], comparison: Comparison) -> Group | None:
    return next(
        (group for group in comparison.ranked if folders & {run.folder for run in group.counted}),
        None,
    )
