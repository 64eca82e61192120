"""What a comparison says: its headline and its caveats."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.report.records.groups import Group, Reader, ranking_score, reader
from harness.report.records.runs import RunRecord
from harness.report.statistics.differences import Pair, neighbours
from harness.report.statistics.ranking import Comparison
from harness.report.text.format import amount, human, one_line, score
from harness.report.text.pairs import tested_words

NOT_GIVEN = ("None", "null", "–", "")


@dataclass(frozen=True)
class Headline:
    """What the runs on one data set show, and the evidence for it."""

    claim: str
    ground: str = ""

    def __str__(self) -> str:
        return f"{self.claim} {self.ground}".strip()


def headlines(comparison: Comparison) -> list[Headline]:
    """For each data set: what is best, by how much, under which budget, over how many seeds."""
    if not comparison.ranked:
        return [Headline("No finished run has test bits per byte, so there is nothing to rank.")]
    return [_headline(groups, comparison.pairs) for groups in comparison.by_data().values()]


def _headline(groups: Sequence[Group], pairs: Sequence[Pair]) -> Headline:
    best = groups[0]
    own = best.spread(ranking_score)
    assert own is not None  # a ranked group has this number
    plural = "seeds" if own.n > 1 else "seed"
    words = (
        f"{best.label} reaches {score(own)} test bits per byte on {best.data} ({own.n} {plural})"
    )
    if len(groups) == 1:
        return Headline(f"{words}, the only configuration with a score.", _budget_words(groups))
    second = groups[1].spread(ranking_score)
    assert second is not None
    gap = second.mean - own.mean
    share = f" ({gap / second.mean:.1%})" if second.mean else ""  # a text of one character costs 0
    words += f", {gap:.3f}{share} below {groups[1].label}, the next best."
    tested = [pair for pair in neighbours(pairs, groups[:2]) if pair.interval is not None]
    ground = tested_words(tested[0]) if tested else _untested_words(*groups[:2])
    return Headline(words, f"{ground} {_budget_words(groups)}")


def _untested_words(best: Group, second: Group) -> str:
    """What the seeds' scores alone can say."""
    if len(best.counted) == 1 or len(second.counted) == 1:
        return "One seed: no spread known."
    if max(_scores(best)) < min(_scores(second)):
        return "Each of its seeds is better than every seed of the next."
    return "Their seeds overlap: this order is not settled."


def _scores(group: Group) -> list[float]:
    return [own for run in group.counted if (own := ranking_score(run)) is not None]


def _budget_words(groups: Sequence[Group]) -> str:
    equal, _ = _currencies(groups)
    if not equal:
        return "No budget is equal between the runs."
    return f"{'Equal budget' if len(groups) > 1 else 'Budget'}: {', '.join(equal)}."


# What can be spent, and how far apart two amounts may be and still count as equal: steps and
# tokens are counted, the others vary with the batches drawn and with the machine.
CURRENCIES: tuple[tuple[str, float, Reader], ...] = (
    ("steps", 0.0, reader("train.steps")),
    ("training tokens", 0.0, reader("train.tokens")),
    ("bytes of text", 0.01, reader("train.bytes")),
    ("FLOPs", 0.01, reader("train.flops")),
    ("seconds", 0.01, reader("train.seconds")),
)


def _currencies(groups: Sequence[Group]) -> tuple[list[str], list[str]]:
    """The currencies in which these groups' runs spent the same, and those in which not."""
    equal, unequal = [], []
    for name, tolerance, read in CURRENCIES:
        spent = [read(run) for group in groups for run in group.counted]
        known = [value for value in spent if value is not None]
        if len(known) < len(spent):
            unequal.append(f"{name} (unknown for some)")
        elif max(known) - min(known) > tolerance * max(known):
            unequal.append(f"{name} ({amount(min(known))} to {amount(max(known))})")
        else:
            equal.append(f"{amount(max(known))} {name}")
    return equal, unequal


def by_tokenizer(comparison: Comparison) -> str | None:
    """The best of each tokenizer, where there are several: the ranking goes across them."""
    best: dict[str, Group] = {}
    for group in comparison.ranked:
        best.setdefault(group.tokenizer, group)
    if len(best) < 2:
        return None
    scores = ((name, group, group.spread(ranking_score)) for name, group in best.items())
    lines = [f"{name}: {group.model}, {score(own)}" for name, group, own in scores if own]
    return f"Best with each tokenizer, in test bits per byte: {'; '.join(lines)}."


def losses(comparison: Comparison) -> list[str]:
    """For each lossy tokenizer, one line on what it does not give back, with an example."""
    lines = []
    for name, run in {group.tokenizer: group.counted[0] for group in comparison.lossy}.items():
        lost = run.lost
        if lost is not None and lost.characters:
            before, after = (lost.examples or [["", ""]])[0]
            lines.append(
                f"{name} changes {lost.changed / lost.characters:.1%} of the characters: "
                f"{one_line(str(before))!r} comes back as {one_line(str(after))!r}."
            )
    return lines


def notes(comparison: Comparison) -> list[str]:
    """What a reader must know before trusting the order; the first is the unequal comparison."""
    by_data = comparison.by_data()
    differing: list[str] = []
    if len(by_data) > 1:
        differing.append(f"data sets ({_listed(by_data)}), ranked apart")
    for data, groups in by_data.items():
        where = f" on {data}" if len(by_data) > 1 else ""
        differing += [f"{what}{where}" for what in _differences(groups)]
    lines = [f"Not an equal comparison. These differ: {'; '.join(differing)}."] if differing else []
    for group in comparison.groups:
        if len(group.counted) < group.attempts:
            lines.append(
                f"{group.label}: {len(group.counted)} of {group.attempts} seeds have a score; "
                "the mean is over those alone."
            )
    runs = [run for group in comparison.ranked for run in group.counted]
    if len({(run.git.get("commit"), run.git.get("dirty")) for run in runs}) > 1:
        lines.append("The ranked runs come from different versions of the code.")
    if len({tuple(sorted(run.machine.items())) for run in runs}) > 1:
        lines.append(
            "The ranked runs ran on different machines or precisions: "
            "their seconds, speeds and memory do not compare."
        )
    return lines


def _differences(groups: Sequence[Group]) -> list[str]:
    runs = [run for group in groups for run in group.counted]
    _, unequal = _currencies(groups)
    budgets = {_stated_budget(run) for run in runs}
    if None in budgets or len(budgets) > 1:
        # FLOPs and seconds are what a comparison measures, unless they are the budget.
        differing = [line for line in unequal if not line.startswith(("FLOPs", "seconds"))]
        stated = sorted(budget for budget in budgets if budget is not None)
        if len(stated) > 1:
            differing.append(f"budgets ({_listed(stated)})")
    else:
        differing = []  # the same amount of the same currency, whatever it came to in the others
    splits = {run.config.get("data.split", "") for run in runs}
    if len(splits) > 1:
        differing.append(f"splits of the text ({_listed(splits)})")
    scored = [run.test.bytes for run in runs if run.test and run.test.bytes is not None]
    # The first token of a split is not scored, so tokenizers differ by a few bytes.
    if scored and max(scored) - min(scored) > 0.001 * max(scored):
        differing.append(f"test split ({human(min(scored))} to {human(max(scored))} bytes scored)")
    # A streaming pass (no stride) gives a model all the context it can use, as any stride tries to.
    strides = {run.test.stride for run in runs if run.test and run.test.stride is not None}
    if len(strides) > 1:
        differing.append(f"evaluation stride ({_listed(f'{stride:g}' for stride in strides)})")
    return differing


def _stated_budget(run: RunRecord) -> str | None:
    """The one `train.*` of the configuration that ends the training; None if it names none."""
    names = ("steps", "tokens", "bytes", "flops", "seconds")
    stated = {name: run.config.get(f"train.{name}", "None") for name in names}
    given = [f"{name}={value}" for name, value in stated.items() if value not in NOT_GIVEN]
    # Steps and tokens are one budget only where a step is as large.
    return ", ".join(given) if given and given[0].partition("=")[0] != "steps" else None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(set(names), key=lambda name: (len(name), name)))
