"""Records grouped over their seeds, and named by what tells one group from another."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.report.records.runs import UNKNOWN, RunRecord

# The key of runs that differ only in the seed: model, tokenizer, data, whether the tokenizer is
# lossless, and the flat configuration.
GroupKey = tuple[Any, ...]
Reader = Callable[[RunRecord], float | None]


def reader(path: str) -> Reader:
    """Reads a number of a run, such as `test.bits_per_byte`; None where any part of the path is."""

    def read(run: RunRecord) -> float | None:
        found: Any = run
        for name in path.split("."):
            found = None if found is None else getattr(found, name)
        number: float | None = found
        return number

    return read


ranking_score = reader("test.bits_per_byte")
lossy_score = reader("test.nats_per_token")


@dataclass(frozen=True)
class Spread:
    """A mean over n seeds, with their sample standard deviation (None for n = 1)."""

    mean: float
    std: float | None
    n: int


@dataclass(frozen=True)
class Group:
    """Runs of one configuration that differ only in the seed.

    `runs` are all of them; `counted` those that finished with a test score, one per seed. `variant`
    names the settings that tell it from other groups of the same model.
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
        """The number of seeds that were tried."""
        return len({run.seed for run in self.runs})

    def spread(self, read: Reader) -> Spread | None:
        """Mean and standard deviation of a number over the seeds; None where a run lacks it."""
        values = [read(run) for run in self.counted]
        known = [value for value in values if value is not None]
        if not known or len(known) < len(values):
            return None
        std = statistics.stdev(known) if len(known) > 1 else None
        return Spread(statistics.fmean(known), std, len(known))


def group_runs(records: Sequence[RunRecord]) -> tuple[list[Group], list[tuple[RunRecord, str]]]:
    """The groups, and every run that is counted in none, with the reason."""
    families: dict[GroupKey, list[RunRecord]] = {}
    uncounted: list[tuple[RunRecord, str]] = []
    for run in records:
        key = (run.model, run.tokenizer, run.data, run.lossless, tuple(sorted(run.config.items())))
        if run.config and run.model != UNKNOWN:
            families.setdefault(key, []).append(run)
        else:
            uncounted.append((run, why_uncounted(run) or "configuration or model unknown"))
    counted = {}
    for key, runs in families.items():
        counted[key], others = _one_run_per_seed(runs)
        uncounted.extend(others)
    # Groups without a score must not lengthen the names of those with one.
    names = _names(list(families)) | _names([key for key in families if counted[key]])
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
    return groups, sorted(uncounted, key=lambda entry: str(entry[0].folder))


def disambiguate_corpora(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Appends the first letters of the digest where one name stands for several texts:
    `text·1a2b3c`."""
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


def _one_run_per_seed(
    runs: Sequence[RunRecord],
) -> tuple[list[RunRecord], list[tuple[RunRecord, str]]]:
    """A repeated seed is the same run again: counting it twice would make the spread too small."""
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


def _names(families: Sequence[GroupKey]) -> dict[GroupKey, tuple[str, str]]:
    """For each family its label and variant among these.

    A label is the model's name, and the tokenizer's and the data set's where there are several.
    """
    several_tokenizers = len({family[1] for family in families}) > 1
    several_data = len({family[2] for family in families}) > 1
    return {
        family: (
            " · ".join([family[0]] + [family[1]] * several_tokenizers + [family[2]] * several_data),
            _variant(family, [other for other in families if other[:4] == family[:4]]),
        )
        for family in families
    }


def _variant(family: GroupKey, siblings: Sequence[GroupKey]) -> str:
    """The settings in which a family differs from its siblings; "" if it has none."""
    configs = [dict(sibling[4]) for sibling in siblings]
    own = dict(family[4])
    differing = sorted(
        key
        for key in {key for config in configs for key in config}
        if len({config.get(key) for config in configs}) > 1
    )
    short = [key.rpartition(".")[2] for key in differing]
    named = [
        f"{last if short.count(last) == 1 else key}={own.get(key, '–')}"
        for key, last in zip(differing, short, strict=True)
    ]
    variant = ", ".join(named[:3])
    if len(named) > 3:
        # Three settings may not be unique; the number among the siblings is.
        variant += f", … (#{configs.index(own) + 1})"
    return variant
