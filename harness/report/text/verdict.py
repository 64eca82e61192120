"""The conclusions of a comparison in sentences: headlines and caveats."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.common.text import visible_line
from harness.report.records.groups import Group, Reader, has_experts, reader
from harness.report.records.runs import RunRecord
from harness.report.records.selection import WORDS, without_test_split
from harness.report.statistics.differences import MAX_TESTED, Pair, adjacent_pairs
from harness.report.statistics.floor import Floor, find_floor
from harness.report.statistics.power import plan
from harness.report.statistics.ranking import Comparison
from harness.report.statistics.skills import grid
from harness.report.text.format import BESIDE, amount, human, score
from harness.report.text.pairs import headline_evidence

VALIDATION_NOTE = (
    "Validation is shown: there are variants of a model here to choose from, and a choice must not "
    "see test. Compare the chosen ones with --split test, which is logged in their folders."
)
NO_TEST_NOTE = (
    "Validation is shown: the text has no test split here (data.split). The best checkpoints were "
    "chosen by it, which flatters them all a little, and pairs are not tested on it."
)
EVALUATION = reader("train.evaluation_seconds")
NOT_GIVEN = ("None", "null", "–", "")


@dataclass(frozen=True)
class Headline:
    """The result on one data set, and the evidence for it."""

    claim: str
    evidence: str = ""

    def __str__(self) -> str:
        return f"{self.claim} {self.evidence}".strip()


def headlines(comparison: Comparison) -> list[Headline]:
    """For each data set: the best model, its lead, the budget, the number of seeds."""
    if not comparison.ranked and (skills := grid(comparison)):
        tasks = len({task.data for task in skills.tasks})
        return [
            Headline(
                f"Accuracy on tasks ({tasks}) by models ({len(skills.models)}): the grid below. "
                "None is ranked."
            )
        ]
    if not comparison.ranked:
        what = f"{WORDS[comparison.split]} bits per byte"
        return [Headline(f"No finished run has {what}, so there is nothing to rank.")]
    return [_headline(groups, comparison.pairs) for groups in comparison.by_data().values()]


def trained_or_all(groups: Sequence[Group]) -> Sequence[Group]:
    """Without those that were counted, unless there are no others: what speaks of training is about
    the trained."""
    return [group for group in groups if not group.is_floor] or groups


def floor_lines(comparison: Comparison) -> list[str]:
    """For each data set: the floor, and which models cross it after how many training tokens."""
    return [_floor_line(data, groups) for data, groups in comparison.by_data().items()]


def _floor_line(data: str, groups: Sequence[Group]) -> str:
    floor = find_floor(groups)
    if floor is None:
        return (
            f"No floor on {data}: none of its models was counted. A run of model=ngram on the same "
            "text gives one, in seconds."
        )
    own = floor.group.score
    assert own is not None  # a ranked group has this number
    on_validation = floor.level is not None and floor.group.split == "test"
    level = f", {floor.level:.3f} on validation" if on_validation else ""
    line = (
        f"The floor on {data} is {floor.group.label}, counted in one pass over train: "
        f"{score(own)} {floor.group.measure}{level}."
    )
    said, above = list[str](), list[str]()
    for group in groups:
        if group.is_floor or (crossings := floor.crossings(group)) is None:
            continue
        if words := _crossing(crossings):
            said.append(f"{group.label} {words}")
        else:
            above.append(group.label)
    if above:
        some = above[0] if len(above) == 1 else f"none of {', '.join(above)}"
        said.append(f"{some} has {'not ' * (len(above) == 1)}crossed it")
    return f"{line} By validation, {'; '.join(said)}." if said else line


def _crossing(crossings: Sequence[float | None]) -> str | None:
    """None: not at all."""
    after = sorted(tokens for tokens in crossings if tokens is not None)
    if not after:
        return None
    span = " to ".join(dict.fromkeys(human(tokens) for tokens in (after[0], after[-1])))
    seeds = f" with {len(after)} of {len(crossings)} seeds" * (len(after) < len(crossings))
    return f"crosses the floor after {span} tokens{seeds}"


def _headline(all_groups: Sequence[Group], pairs: Sequence[Pair]) -> Headline:
    groups = trained_or_all(all_groups)
    best = groups[0]
    own = best.score
    assert own is not None  # a ranked group has this number
    plural = "seeds" if own.n > 1 else "seed"
    words = f"{best.label} reaches {score(own)} {best.measure} on {best.data} ({own.n} {plural})"
    above = _above_floor(best, find_floor(all_groups))
    if len(groups) == 1:
        only = "the only trained one" if len(all_groups) > 1 else "the only configuration"
        return Headline(f"{words}, {only} with a score.{above}", _budget(groups))
    second = groups[1].score
    assert second is not None
    gap = second.mean - own.mean
    share = f" ({gap / second.mean:.1%})" if second.mean else ""  # 0 for a text of one character
    words += f", {gap:.3f}{share} below {groups[1].label}, the next best.{above}"
    tested = [pair for pair in adjacent_pairs(pairs, groups[:2]) if pair.interval is not None]
    evidence = headline_evidence(tested[0]) if tested else _untested_evidence(*groups[:2])
    return Headline(words, f"{evidence} {_budget(groups)}")


def _above_floor(best: Group, floor: Floor | None) -> str:
    """A sentence if the best trained model has a higher score than the floor."""
    own, counted = best.score, floor and floor.group.score
    if floor is None or own is None or not counted or own.mean <= counted.mean:
        return ""
    return f" That is above the floor: {floor.group.label}, counted, has {score(counted)}."


def _untested_evidence(best: Group, second: Group) -> str:
    """The evidence of the seeds' scores alone."""
    if len(best.counted) == 1 or len(second.counted) == 1:
        return "One seed: no spread known."
    if max(best.scores) < min(second.scores):
        return "Each of its seeds is better than every seed of the next."
    return "Their seeds overlap: this order is not settled."


def _budget(groups: Sequence[Group]) -> str:
    equal, _ = _currencies(groups)
    if not equal:
        return "No budget is equal between the runs."
    return f"{'Equal budget' if len(groups) > 1 else 'Budget'}: {', '.join(equal)}."


# Budgets, each with the relative difference that still counts as equal: bytes, FLOPs and seconds
# vary with the batches drawn and with the machine.
Currency = tuple[str, float, Reader]
PARAMETERS: Currency = ("parameters", 0.0, reader("parameters"))
ACTIVE: Currency = ("active parameters", 0.0, reader("active"))
CURRENCIES: tuple[Currency, ...] = (
    ("steps", 0.0, reader("train.steps")),
    ("training tokens", 0.0, reader("train.tokens")),
    ("bytes of text", 0.01, reader("train.bytes")),
    ("FLOPs", 0.01, reader("train.flops")),
    ("seconds", 0.01, reader("train.seconds")),
)


def _as_measured(currencies: Iterable[Currency], groups: Sequence[Group]) -> list[Currency]:
    """Seconds marked if other jobs shared the machine."""
    mark = BESIDE if any(group.beside for group in groups) else ""
    return [
        (name + mark if name == "seconds" else name, tolerance, read)
        for name, tolerance, read in currencies
    ]


def _currencies(groups: Sequence[Group]) -> tuple[list[str], list[str]]:
    """The currencies in which all runs spent the same, and the others, as phrases."""
    equal, unequal = [], []
    for name, tolerance, read in _as_measured(CURRENCIES, groups):
        spent = [read(run) for group in groups for run in group.counted]
        known = [value for value in spent if value is not None]
        if len(known) < len(spent):
            unequal.append(f"{name} (unknown for some)")
        elif max(known) - min(known) > tolerance * max(known):
            unequal.append(f"{name} ({amount(min(known))} to {amount(max(known))})")
        else:
            equal.append(f"{amount(max(known))} {name}")
    return equal, unequal


def copied_lines(comparison: Comparison) -> list[str]:
    """For each data set of which train has long passages of the text that is compared on."""
    lines = []
    for data, groups in comparison.by_data().items():
        runs = [run for group in groups for run in group.counted if run.without_copied]
        found = runs[0].without_copied if runs else None
        whole = getattr(runs[0], comparison.split) if runs else None
        if found is not None and found.copied and whole is not None and whole.bytes:
            share = min(1.0, found.copied / whole.bytes)  # which is without the first token
            lines.append(
                f"{data}: {found.copied:,} bytes of the {WORDS[comparison.split]} text "
                f"({share:.2%}) lie in passages of {found.passage} bytes or "
                "more that train has, too; the column unseen is the score without their tokens."
            )
    return lines


def equality_lines(comparison: Comparison) -> list[str]:
    """For each data set: in what its trained models are equal, and by how much they differ in the
    rest."""
    several = len(comparison.by_data()) > 1
    return [
        _equality_line(trained_or_all(groups), f" on {data}" if several else "")
        for data, groups in comparison.by_data().items()
    ]


def _equality_line(groups: Sequence[Group], where: str) -> str:
    equal, unequal = [], []
    active = [ACTIVE] if any(has_experts(group) for group in groups) else []
    for name, tolerance, read in (PARAMETERS, *active, *_as_measured(CURRENCIES, groups)):
        spent = [read(run) for group in groups for run in group.counted]
        known = [value for value in spent if value is not None]
        counted = [value for value in known if value > 0]
        if len(known) < len(spent):
            unequal.append(f"{name} (unknown for some)")
        elif max(known) - min(known) <= tolerance * max(known):
            equal.append(name if counted else f"{name} (0)")
        else:
            low, high = min(counted), max(counted)
            span = f"{amount(low)} to {amount(high)}, {amount(high / low)}-fold"
            if high - low <= tolerance * high:
                span = amount(high)
            none = "; 0 for look-ups" * (len(counted) < len(known))
            unequal.append(f"{name} ({span}{none})")
    own = f"Equal{where}: {', '.join(equal) or 'nothing'}."
    differing = f" Not equal: {', '.join(unequal)}." if unequal else ""
    return own + differing


def evaluation_lines(comparison: Comparison) -> list[str]:
    """What share of a training's time its evaluations took, where the runs know it."""
    shares = {}
    for group in trained_or_all(comparison.ranked):
        took, trained = group.spread(EVALUATION), group.spread(reader("train.seconds"))
        if took is not None and trained is not None and took.mean + trained.mean > 0:
            shares[group.label] = took.mean / (took.mean + trained.mean)
    if not shares:
        return []
    least, most = min(shares, key=shares.__getitem__), max(shares, key=shares.__getitem__)
    words = f"{shares[most]:.0%} of the time ({most})"
    if least != most:
        words = f"{shares[least]:.0%} ({least}) to {words}"
    return [f"Exact evaluation on the way took {words}, which training seconds leave out."]


def plan_lines(comparison: Comparison) -> list[str]:
    """For each data set whose models have several seeds: what so many seeds can find."""
    lines = []
    for groups in comparison.by_data().values():
        trained = [group for group in groups if not group.is_floor]
        variances = [
            (score.std**2, score.n - 1)
            for group in trained
            if (score := group.score) is not None and score.std is not None
        ]
        if len(trained) > 1 and variances:
            freedom = sum(own for _, own in variances)
            spread = math.sqrt(sum(own * variance for variance, own in variances) / freedom)
            fewest = min(len(group.counted) for group in trained)
            tested = min(len(groups), MAX_TESTED)
            pairs = tested * (tested - 1) // 2
            if spread:
                lines.append(plan(fewest, spread, pairs, "as here"))
    return lines


def best_by_tokenizer(comparison: Comparison) -> list[str]:
    """For each data set with several tokenizers: the best model with each of them."""
    by_data = comparison.by_data()
    lines = []
    for data, groups in by_data.items():
        best: dict[str, Group] = {}
        for group in trained_or_all(groups):
            best.setdefault(group.tokenizer, group)
        if len(best) > 1:
            where = f" on {data}" if len(by_data) > 1 else ""
            scores = ((name, group, group.score) for name, group in best.items())
            each = [f"{name}: {group.model}, {score(own)}" for name, group, own in scores if own]
            lines.append(
                f"Best with each tokenizer{where}, in {groups[0].measure}: {'; '.join(each)}."
            )
    return lines


def lossy_examples(comparison: Comparison) -> list[str]:
    """A sentence for each lossy tokenizer: how much text it changes, with an example."""
    lines = []
    for name, run in {group.tokenizer: group.counted[0] for group in comparison.lossy}.items():
        lost = run.lost
        if lost is not None and lost.characters:
            before, after = (lost.examples or [["", ""]])[0]
            lines.append(
                f"{name} changes {lost.changed / lost.characters:.1%} of the characters: "
                f"{visible_line(str(before))!r} comes back as {visible_line(str(after))!r}."
            )
    return lines


def notes(comparison: Comparison) -> list[str]:
    """Caveats of the ranking; first, what makes the comparison unequal."""
    by_data = comparison.by_data()
    differing: list[str] = []
    if len(by_data) > 1:
        differing.append(f"data sets ({_listed(by_data)}), ranked apart")
    for data, groups in by_data.items():
        where = f" on {data}" if len(by_data) > 1 else ""
        differing += [f"{what}{where}" for what in _differences(groups)]
    lines = [f"Not an equal comparison. These differ: {'; '.join(differing)}."] if differing else []
    if comparison.split == "val":
        by_need = without_test_split(comparison.records)
        lines.append(NO_TEST_NOTE if by_need else VALIDATION_NOTE)
    for group in comparison.groups:
        if len(group.counted) < group.attempts:
            lines.append(
                f"{group.label}: {len(group.counted)} of {group.attempts} seeds have a score; "
                "the mean is over those alone."
            )
    runs = [run for group in comparison.ranked for run in group.counted]
    lines += [f"{comparison.names[run.folder]} is {lineage(run)}." for run in runs if run.lineage]
    lines += [
        f"{comparison.names[run.folder]} went on under another budget at step "
        f"{', '.join(map(str, run.extended))}: its rates up to there are not those of a training "
        "of the budget that it has now."
        for run in runs
        if run.extended
    ]
    if complete := sum(run.complete for run in runs):
        which = "All" if complete == len(runs) else f"{complete} of {len(runs)}"
        lines.append(f"{which} ranked scores are those of every token fed alone, one at a time.")
    if len({(run.git.get("commit"), run.git.get("dirty")) for run in runs}) > 1:
        lines.append("The ranked runs come from different versions of the code.")
    if len(set(map(_machine, runs))) > 1:
        lines.append(
            "The ranked runs ran on different machines or precisions: "
            "their seconds, speeds and memory do not compare."
        )
    if most := max((group.beside for group in comparison.groups), default=0):
        lines.append(
            f"{BESIDE} Seconds and speeds measured while other jobs of the sweep (at most {most}) "
            "ran on the same machine: they do not compare with those of a run that had it alone."
        )
    return lines


def _machine(run: RunRecord) -> tuple[tuple[str, str], ...]:
    """Which of several equal devices it was does not matter."""
    device = run.machine.get("device", "").partition(":")[0]
    return tuple(sorted((dict(run.machine) | {"device": device}).items()))


def lineage(run: RunRecord) -> str:
    """Where a fork comes from, in words; "" for a run that began at step 0."""
    if not run.lineage:
        return ""
    steps = ", ".join(f"{each.run} at step {each.step}" for each in reversed(run.lineage))
    return f"a fork of {steps}: rows and costs up to there are those of its parent"


def _differences(groups: Sequence[Group]) -> list[str]:
    runs = [run for group in groups for run in group.counted]
    trained = trained_or_all(groups)  # a floor has one pass over train, whatever the budget
    _, unequal = _currencies(trained)
    budgets = {_stated_budget(run) for group in trained for run in group.counted}
    if None in budgets or len(budgets) > 1:
        # FLOPs and seconds are what a comparison measures, unless they are the budget.
        differing = [line for line in unequal if not line.startswith(("FLOPs", "seconds"))]
        stated = sorted(budget for budget in budgets if budget is not None)
        if len(stated) > 1:
            differing.append(f"budgets ({_listed(stated)})")
    else:
        differing = []  # the same stated budget, whatever was spent in other currencies
    splits = {run.config.get("data.split", "") for run in runs}
    if len(splits) > 1:
        differing.append(f"splits of the text ({_listed(splits)})")
    splits_scored = [getattr(run, groups[0].split) for run in runs]
    scored = [each.bytes for each in splits_scored if each and each.bytes is not None]
    # The first token of a split is not scored, so tokenizers differ by a few bytes.
    if scored and max(scored) - min(scored) > 0.001 * max(scored):
        span = f"{human(min(scored))} to {human(max(scored))}"
        differing.append(f"{WORDS[groups[0].split]} split ({span} bytes scored)")
    # A streaming pass (no stride) gives a model all the context it can use, as any stride tries to.
    strides = {each.stride for each in splits_scored if each and each.stride is not None}
    if len(strides) > 1:
        differing.append(f"evaluation stride ({_listed(f'{stride:g}' for stride in strides)})")
    return differing


def _stated_budget(run: RunRecord) -> str | None:
    """The `train.*` settings that end the training; None if there are none, or for steps, which
    can differ in size."""
    names = ("steps", "tokens", "bytes", "flops", "seconds")
    stated = {name: run.config.get(f"train.{name}", "None") for name in names}
    given = [f"{name}={value}" for name, value in stated.items() if value not in NOT_GIVEN]
    return ", ".join(given) if given and given[0].partition("=")[0] != "steps" else None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(set(names), key=lambda name: (len(name), name)))
