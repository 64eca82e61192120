"""Runs grouped over their seeds, and ranked by test bits per byte."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.report.differences import Pair, compare_pairs
from harness.report.runs import UNKNOWN, RunRecord

# What runs have in common that differ in the seed alone: model, tokenizer, data, whether that is
# lossless, and the configuration.
Family = tuple[Any, ...]


@dataclass(frozen=True)
class Spread:
    """A mean over n seeds, with their sample standard deviation (None for n = 1)."""

    mean: float
    std: float | None
    n: int


@dataclass(frozen=True)
class Group:
    """Runs of one configuration that differ in the seed alone.

    `runs` are all of them; `counted` those that finished with a test score, one a seed. `variant`
    names what tells it from its siblings with the same model.
    """

    model: str
    tokenizer: str
    data: str
    variant: str
    label: str
    config: Mapping[str, str]
    runs: tuple[RunRecord, ...]
    counted: tuple[RunRecord, ...]

    @property
    def attempts(self) -> int:
        """How many seeds were tried."""
        return len({run.seed for run in self.runs})

    def spread(self, read: Callable[[RunRecord], float | None]) -> Spread | None:
        """Mean and standard deviation of a number over the seeds; None where a run lacks it."""
        values = [read(run) for run in self.counted]
        known = [value for value in values if value is not None]
        if not known or len(known) < len(values):
            return None
        std = statistics.stdev(known) if len(known) > 1 else None
        return Spread(statistics.fmean(known), std, len(known))


@dataclass(frozen=True)
class Comparison:
    """Records sorted into what can be ranked and what can't.

    `ranked`: groups by data set, then by mean test bits per byte, lowest first. `lossy`: groups
    whose tokenizer is lossy, unranked. `uncounted`: every other run, with the reason. `pairs`:
    every two ranked groups of one data set, tested.
    """

    records: tuple[RunRecord, ...]
    ranked: tuple[Group, ...]
    lossy: tuple[Group, ...]
    unscored: tuple[Group, ...]
    uncounted: tuple[tuple[RunRecord, str], ...]
    pairs: tuple[Pair, ...]

    @property
    def groups(self) -> tuple[Group, ...]:
        """All groups that have a score, in the order in which they are shown."""
        return self.ranked + self.lossy

    @property
    def configurations(self) -> tuple[Group, ...]:
        """All groups, those without a score last: a group's place here is its number."""
        return self.groups + self.unscored

    def number(self, group: Group) -> int:
        """Of the group's line style and of its configuration on the page."""
        return next(n for n, other in enumerate(self.configurations) if other is group)


def ranking_score(run: RunRecord) -> float | None:
    """The number that ranks."""
    return run.test.bits_per_byte if run.test else None


def lossy_score(run: RunRecord) -> float | None:
    """The number of a run whose tokenizer is lossy."""
    return run.test.nats_per_token if run.test else None


def compare_runs(records: Sequence[RunRecord]) -> Comparison:
    """Groups runs over their seeds and sorts the groups."""
    records = _tell_corpora_apart(records)
    families: dict[Family, list[RunRecord]] = {}
    uncounted: list[tuple[RunRecord, str]] = []
    for run in records:
        key = (run.model, run.tokenizer, run.data, run.lossless, tuple(sorted(run.config.items())))
        if run.config and run.model != UNKNOWN:
            families.setdefault(key, []).append(run)
        else:
            uncounted.append((run, why_uncounted(run) or "configuration or model unknown"))
    counted = {}
    for key, runs in families.items():
        counted[key], others = _one_run_a_seed(runs)
        uncounted.extend(others)
    # What never got a score must not lengthen the names of those that did.
    scored = [key for key in families if counted[key]]
    names = _names(scored) | _names(list(families), [key for key in families if not counted[key]])
    groups = []
    for key, runs in families.items():
        label, variant = names[key]
        groups.append(
            Group(
                model=key[0],
                tokenizer=key[1],
                data=key[2],
                variant=variant,
                label=f"{label} · {variant}" if variant else label,
                config=runs[0].config,
                runs=tuple(sorted(runs, key=lambda run: str(run.folder))),
                counted=tuple(counted[key]),
            )
        )
    lossless = [group for group in groups if group.counted and group.counted[0].lossless]
    lossy = [group for group in groups if group.counted and not group.counted[0].lossless]
    ranked = tuple(sorted(lossless, key=_rank_key))
    return Comparison(
        records=tuple(records),
        ranked=ranked,
        lossy=tuple(sorted(lossy, key=lambda group: group.label)),
        unscored=tuple(group for group in groups if not group.counted),
        uncounted=tuple(sorted(uncounted, key=lambda entry: str(entry[0].folder))),
        pairs=compare_pairs(ranked),
    )


def _tell_corpora_apart(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Different texts under one name get their digest's first letters behind it: `text·1a2b3c`."""
    texts: dict[str, set[str]] = {}
    for run in records:
        if run.corpus != UNKNOWN:
            texts.setdefault(run.data, set()).add(run.corpus)
    return [
        replace(run, data=f"{run.data}·{run.corpus[:6]}")
        if len(texts.get(run.data, ())) > 1 and run.corpus != UNKNOWN
        else run
        for run in records
    ]


def _rank_key(group: Group) -> tuple[str, float, str]:
    spread = group.spread(ranking_score)
    assert spread is not None  # a counted lossless run has this number
    return group.data, spread.mean, group.label


def why_uncounted(run: RunRecord) -> str | None:
    """Why a run has no place in a ranking, in one line; None where it has one."""
    if run.status != "finished":
        last = run.metrics.last_step
        reached = "no step recorded" if last is None else f"at step {last}"
        state = {"running": "still running, or killed", "stopped": "stopped before its end"}
        return run.error or f"{state.get(run.status, 'no error recorded')}, {reached}"
    if run.leaks:
        return "leaks: its tokenizer was learnt from the validation and test text, too"
    if not run.causal:
        return "not causal: evaluated with the statistics of the batch at hand"
    if (ranking_score(run) if run.lossless else lossy_score(run)) is None:
        return "finished without a test score"
    return None


def _one_run_a_seed(
    runs: Sequence[RunRecord],
) -> tuple[list[RunRecord], list[tuple[RunRecord, str]]]:
    """A repeat of a seed is the same run again: counting it would feign a spread."""
    by_seed: dict[float | None, RunRecord] = {}
    others = []
    for run in runs:
        reason = why_uncounted(run)
        if reason is None and run.seed in by_seed:
            reason = f"repeats seed {run.seed} of {by_seed[run.seed].folder.name}: counted once"
        if reason is None:
            by_seed[run.seed] = run
        else:
            others.append((run, reason))
    return sorted(by_seed.values(), key=lambda run: (run.seed is None, run.seed)), others


def _names(
    families: Sequence[Family], wanted: Sequence[Family] | None = None
) -> dict[Family, tuple[str, str]]:
    """For each family that is wanted (default: all), its label and variant among all families."""
    names = dict(
        zip(families, zip(_labels(families), _variants(families), strict=True), strict=True)
    )
    return {family: names[family] for family in (families if wanted is None else wanted)}


def _labels(families: Sequence[Family]) -> list[str]:
    """The model's name, and the tokenizer's and the data set's where there are several."""
    several_tokenizers = len({family[1] for family in families}) > 1
    several_data = len({family[2] for family in families}) > 1
    return [
        " · ".join([model] + [tokenizer] * several_tokenizers + [data] * several_data)
        for model, tokenizer, data, *_ in families
    ]


def _variants(families: Sequence[Family]) -> list[str]:
    """For each family the settings that tell it from those of the same model; "" if it is alone."""
    variants: list[str] = []
    for family in families:
        siblings = [dict(other[4]) for other in families if other[:4] == family[:4]]
        own = dict(family[4])
        differing = sorted(
            key
            for key in {key for sibling in siblings for key in sibling}
            if len({sibling.get(key) for sibling in siblings}) > 1
        )
        short = [key.rpartition(".")[2] for key in differing]
        named = [
            f"{last if short.count(last) == 1 else key}={own.get(key, '–')}"
            for key, last in zip(differing, short, strict=True)
        ]
        variant = ", ".join(named[:3])
        if len(named) > 3:
            # Three settings may not be unique; the number among the siblings is.
            variant += f", … (#{siblings.index(own) + 1})"
        variants.append(variant)
    return variants
