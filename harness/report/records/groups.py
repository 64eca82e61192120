"""Records grouped over their seeds, and labelled by the settings in which groups differ."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from harness.report.records.runs import UNKNOWN, RunRecord
from harness.report.records.selection import WORDS, Split
from harness.runs.summary import Scored

Reader = Callable[[RunRecord], float | None]


def reader(path: str) -> Reader:
    """Reads a number by its dotted path, such as `test.bits_per_byte`; None if a part is None."""

    def read(run: RunRecord) -> float | None:
        found: Any = run
        for name in path.split("."):
            found = None if found is None else getattr(found, name)
        number: float | None = found
        return number

    return read


def score_reader(split: Split, lossless: bool) -> Reader:
    """Reads what runs are ranked by, bits per byte; of a lossy tokenizer nats per token."""
    return reader(f"{split}.{'bits_per_byte' if lossless else 'nats_per_token'}")


def own_reader(split: Split, name: str) -> Reader:
    """Reads one of the user's own figures."""

    def read(run: RunRecord) -> float | None:
        scored: Scored | None = getattr(run, split)
        return (scored.own or {}).get(name) if scored else None

    return read


def own_names(groups: Sequence[Group], split: Split) -> list[str]:
    """The names of the users' own figures, in the order in which they come."""
    scores = [getattr(run, split) for group in groups for run in group.counted]
    return list(dict.fromkeys(name for scored in scores if scored for name in scored.own or {}))


class GroupKey(NamedTuple):
    """What the runs of a group share. config: flat, sorted by key."""

    model: str
    tokenizer: str
    data: str
    lossless: bool
    config: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over n seeds; std is None for n = 1."""

    mean: float
    std: float | None
    n: int


@dataclass(frozen=True)
class Group:
    """Runs of one configuration that differ only in the seed.

    counted: those of `runs` that finished with a score, one per seed. variant: the settings in
    which it differs from other groups of the same model. split: which one it is compared on.
    """

    model: str
    tokenizer: str
    data: str
    variant: str
    label: str
    config: Mapping[str, str]
    runs: tuple[RunRecord, ...]
    counted: tuple[RunRecord, ...]
    split: Split = "test"

    @property
    def is_floor(self) -> bool:
        """Whether its model was counted in one pass over train, not trained."""
        return any(run.state is not None for run in self.runs)

    @property
    def beside(self) -> int:
        """How many other jobs ran at most while its seconds were measured."""
        return max((int(run.train.beside or 0) for run in self.counted), default=0)

    @property
    def scores(self) -> list[float]:
        """What it is ranked by, of each counted run."""
        read = score_reader(self.split, lossless=True)
        return [own for run in self.counted if (own := read(run)) is not None]

    @property
    def score(self) -> Spread | None:
        """What it is ranked by."""
        return self.spread(score_reader(self.split, lossless=True))

    @property
    def measure(self) -> str:
        """What it is ranked by, in words."""
        return f"{WORDS[self.split]} bits per byte"

    @property
    def attempts(self) -> int:
        """The number of different seeds, counted or not."""
        return len({run.seed for run in self.runs})

    def spread(self, read: Reader) -> Spread | None:
        """Mean and standard deviation over the seeds; None if a counted run lacks the number."""
        values = [read(run) for run in self.counted]
        known = [value for value in values if value is not None]
        if not known or len(known) < len(values):
            return None
        std = statistics.stdev(known) if len(known) > 1 else None
        return Spread(statistics.fmean(known), std, len(known))


def has_experts(group: Group) -> bool:
    """Whether a token goes through some of its parameters only."""
    return any(run.active != run.parameters for run in group.counted)


def group_runs(
    records: Sequence[RunRecord], split: Split = "test"
) -> tuple[list[Group], list[tuple[RunRecord, str]]]:
    """The groups, and every run that is not counted, with the reason."""
    by_key: dict[GroupKey, list[RunRecord]] = {}
    uncounted: list[tuple[RunRecord, str]] = []
    for run in records:
        config = tuple(sorted(run.config.items()))
        key = GroupKey(run.model, run.tokenizer, run.data, run.lossless, config)
        if run.config and run.model != UNKNOWN:
            by_key.setdefault(key, []).append(run)
        else:
            uncounted.append((run, why_uncounted(run, split) or "configuration or model unknown"))
    counted = {}
    for key, runs in by_key.items():
        counted[key], others = _one_run_per_seed(runs, split)
        uncounted.extend(others)
    # Groups without a score must not lengthen the labels of those with one.
    labels = _labels(list(by_key)) | _labels([key for key in by_key if counted[key]])
    groups = []
    for key, runs in by_key.items():
        label, variant = labels[key]
        groups.append(
            Group(
                model=key.model,
                tokenizer=key.tokenizer,
                data=key.data,
                variant=variant,
                label=f"{label} · {variant}" if variant else label,
                config=runs[0].config,
                runs=tuple(sorted(runs, key=lambda run: str(run.folder))),
                counted=tuple(counted[key]),
                split=split,
            )
        )
    return groups, sorted(uncounted, key=lambda entry: str(entry[0].folder))


def disambiguate_corpora(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Append the start of the corpus digest to data names that several texts share:
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


def why_uncounted(run: RunRecord, split: Split = "test") -> str | None:
    """Why a run can't be ranked, in one line; None if it can."""
    if run.status != "finished":
        last = run.metrics.last_step
        reached = "no step recorded" if last is None else f"at step {last}"
        state = {"running": "still running, or killed", "stopped": "stopped before its end"}
        return run.error or f"{state.get(run.status, 'no error recorded')}, {reached}"
    if run.leaks:
        return "leaks: its tokenizer was learnt from the validation and test text, too"
    score = score_reader(split, run.lossless)(run)
    if score is None:
        return run.error or f"finished without a {WORDS[split]} score"
    if run.val is not None and run.val.share is not None:
        return f"a part of validation ({100 * run.val.share:.3g} %: eval.part), so it is not ranked"
    if run.uncertified is not None:
        unit = "bits per byte" if run.lossless else "nats per token"
        return f"not certified, {score:.3f} {unit}: {run.uncertified}"
    if not run.causal:
        return "not causal: its certificate at the training's end failed; train it anew"
    return None


def _one_run_per_seed(
    runs: Sequence[RunRecord], split: Split
) -> tuple[list[RunRecord], list[tuple[RunRecord, str]]]:
    """The counted runs, and the others with the reason. A repeated seed is the same run again:
    counting it twice would make the spread too small."""
    by_seed: dict[float | None, RunRecord] = {}
    others = []
    for run in runs:
        reason = why_uncounted(run, split)
        if reason is None and run.seed in by_seed:
            reason = f"repeats seed {run.seed} of {by_seed[run.seed].folder.name}: counted once"
        if reason is None:
            by_seed[run.seed] = run
        else:
            others.append((run, reason))
    return sorted(by_seed.values(), key=lambda run: (run.seed is None, run.seed)), others


def by_data(groups: Iterable[Group]) -> dict[str, list[Group]]:
    """The groups of each data set."""
    found: dict[str, list[Group]] = {}
    for group in groups:
        found.setdefault(group.data, []).append(group)
    return found


def _labels(keys: Sequence[GroupKey]) -> dict[GroupKey, tuple[str, str]]:
    """The label and variant of each key. A label is the model's name, and the tokenizer's and the
    data set's where there are several."""
    several_tokenizers = len({key.tokenizer for key in keys}) > 1
    several_data = len({key.data for key in keys}) > 1
    siblings: dict[tuple[Any, ...], list[GroupKey]] = {}
    for key in keys:
        siblings.setdefault(key[:4], []).append(key)
    labels = {}
    for own in siblings.values():
        for key, variant in zip(own, _variants([dict(key.config) for key in own]), strict=True):
            names = [key.model] + [key.tokenizer] * several_tokenizers + [key.data] * several_data
            labels[key] = " · ".join(names), variant
    return labels


def _variants(configs: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """For each configuration the settings in which it differs from the others; "" if there are
    none."""
    differing = sorted(
        name
        for name in {name for config in configs for name in config}
        if len({config.get(name) for config in configs}) > 1
    )
    short = [name.rpartition(".")[2] for name in differing]
    often = Counter(short)
    shown = [
        last if often[last] == 1 else name for name, last in zip(differing, short, strict=True)
    ]
    for number, config in enumerate(configs, 1):
        named = [
            f"{word}={config.get(name, '–')}"
            for word, name in zip(shown[:3], differing, strict=False)
        ]
        variant = ", ".join(named)
        if len(differing) > 3:
            # Three settings may not be unique; the number among the siblings is.
            variant += f", … (#{number})"
        yield variant
