"""The report's tables: the ranking, the pairs, the configurations and every run."""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.report.curves import MOST_DRAWN
from harness.report.differences import MOST_TESTED, Pair, neighbours, sentence
from harness.report.format_numbers import chance, signed
from harness.report.markup import Cell, Head, caption, details, table
from harness.report.page import escape, section
from harness.report.paired import DRAWS, LEVEL
from harness.report.ranking import Comparison, Group, lossy_score, ranking_score
from harness.report.runs import RunRecord
from harness.report.svg import swatch
from harness.report.verdict import (
    LOSSY_NOTE,
    MEANS_NOTE,
    by_tokenizer,
    columns,
    losses,
    place,
    plain,
    run_name,
)

FEW_PAIRS = 15  # more open on demand


def ranking(comparison: Comparison) -> str:
    if not comparison.ranked:
        return ""
    return section(
        "Ranking",
        _groups(comparison, comparison.ranked, is_lossy=False),
        caption(
            by_tokenizer(comparison) or "",
            MEANS_NOTE,
            "Every number leads to the configuration of its runs; a click on a heading sorts.",
        ),
    )


def lossy(comparison: Comparison) -> str:
    if not comparison.lossy:
        return ""
    return section(
        "Lossy tokenizers",
        _groups(comparison, comparison.lossy, is_lossy=True),
        caption(
            f"Not ranked: {LOSSY_NOTE}. Nats per token compare models on one tokenizer only.",
            *losses(comparison),
        ),
    )


def _groups(comparison: Comparison, groups: Sequence[Group], *, is_lossy: bool) -> str:
    shown = columns(groups, lossy=is_lossy)
    heads = [] if is_lossy else [Head("#", kind="rank")]
    heads += [Head(column.header, column.unit, column.is_text) for column in shown]
    rows = []
    for index, group in enumerate(groups):
        number = comparison.number(group)
        row = [] if is_lossy else [Cell(str(place(groups, index)), index)]
        for column in shown:
            text, key = column.read(group)
            mark = _swatch(number) if column.header == "model" else ""
            row.append(Cell(mark + link(text, number), key))
        rows.append(row)
    return table(heads, rows, "Lossy tokenizers" if is_lossy else "Ranking")


def _swatch(number: int) -> str:
    return swatch(number) if number < MOST_DRAWN else ""


def link(text: str, number: int) -> str:
    """A number, or a name, that leads to the configuration it comes from."""
    return f'<a href="#config-{number}">{escape(text)}</a>' if text not in ("", "–") else text


def linked(line: str, comparison: Comparison) -> str:
    """A sentence in which the groups' names lead to their configurations."""
    numbers = {escape(group.label): comparison.number(group) for group in comparison.groups}
    names = "|".join(re.escape(name) for name in sorted(numbers, key=len, reverse=True))
    if not names:
        return escape(line)
    return re.sub(
        rf"(?<![\w&#])(?:{names})(?!\w)",
        lambda found: f'<a href="#config-{numbers[found[0]]}">{found[0]}</a>',
        escape(line),
    )


def differences(comparison: Comparison) -> str:
    """The neighbours of the ranking in words, and every pair in a table."""
    tested = [pair for pair in comparison.pairs if pair.interval is not None]
    next_to_each_other = neighbours(comparison.pairs, comparison.ranked)
    if not next_to_each_other:
        return ""
    words = "".join(f"<li>{linked(sentence(pair), comparison)}</li>" for pair in next_to_each_other)
    parts = [f'<ul class="findings">{words}</ul>']
    if tested:
        pairs = _pairs(comparison, tested)
        parts.append(
            pairs if len(tested) <= FEW_PAIRS else details(f"All {len(tested)} pairs", pairs)
        )
        parts.append(caption(*_how_tested(tested, comparison.ranked)))
    return section("Differences, in pairs", *parts)


def _how_tested(tested: Sequence[Pair], ranked: Sequence[Group]) -> list[str]:
    lines = [
        "A difference is how many more bits per byte the second pays, on the same bytes of the "
        f"test text, over the seeds that both have. Its {LEVEL:.0%} interval is that of the pair "
        f"by itself: stretches of neighbouring blocks of text are resampled {DRAWS:,} times, and "
        "the chance in training is added as Student's t over the seeds' differences.",
        f"p is two-sided; below {1 - LEVEL:.2g} the first is called better.",
    ]
    if any(len(pair.seeds) == 1 for pair in tested):
        lines.append(
            "With one seed the chance in training is left out: interval and p then speak of two "
            "trained models, not of the architectures."
        )
    if (most := max(pair.family for pair in tested)) > 1:
        lines.append(f"p is after Holm's correction for all {most} pairs of a data set.")
    if any(place(ranked, index) > MOST_TESTED for index in range(len(ranked))):
        lines.append(f"Only the first {MOST_TESTED} of a ranking are tested.")
    return lines


def _pairs(comparison: Comparison, tested: Sequence[Pair]) -> str:
    intervals = [pair.interval for pair in tested if pair.interval is not None]
    low = min(0.0, *(interval.low for interval in intervals))
    high = max(0.0, *(interval.high for interval in intervals))
    heads = [
        Head("first", text=True), Head("second", text=True), Head("difference", "bits/byte"),
        Head(f"{LEVEL:.0%} interval", "bits/byte"), Head("", kind="bar"), Head("p", "after Holm"),
        Head("seeds", "in common"), Head("is the first better?", text=True),
    ]  # fmt: skip
    rows = []
    for pair, found in zip(tested, intervals, strict=True):
        first, second = comparison.number(pair.better), comparison.number(pair.worse)
        of_text = " <small>(text)</small>" if len(pair.seeds) == 1 else ""
        rows.append(
            [
                Cell(_swatch(first) + link(pair.better.label, first), pair.better.label),
                Cell(_swatch(second) + link(pair.worse.label, second), pair.worse.label),
                Cell(link(signed(found.mean), first), found.mean),
                Cell(link(f"{signed(found.low)} to {signed(found.high)}", second), found.low),
                Cell(_interval_bar(found.low, found.mean, found.high, low, high), found.mean),
                Cell(link(chance(pair.p), second) + of_text, pair.p),
                Cell(link(str(len(pair.seeds)), first), len(pair.seeds)),
                Cell(_answer(pair), _answer(pair), "" if pair.settled else "open"),
            ]
        )
    return table(heads, rows, "Differences between pairs")


def _answer(pair: Pair) -> str:
    if not pair.settled:
        return "not shown"
    return "yes" if len(pair.seeds) > 1 else "with this seed"


def _interval_bar(low: float, mean: float, high: float, left: float, right: float) -> str:
    """The interval drawn on an axis that all rows share; the vertical line is no difference."""

    def at(value: float) -> str:
        return f"{4 + 112 * (value - left) / ((right - left) or 1):.1f}"

    return (
        '<svg class="interval" viewBox="0 0 120 14" aria-hidden="true">'
        f'<line class="zero" x1="{at(0)}" x2="{at(0)}" y1="0" y2="14"/>'
        f'<line x1="{at(low)}" x2="{at(high)}" y1="7" y2="7"/>'
        f'<circle cx="{at(mean)}" cy="7" r="3.2"/></svg>'
    )


def configurations(comparison: Comparison) -> str:
    """What differs between them, and each of them whole."""
    groups = comparison.configurations
    if not groups:
        return ""
    keys = sorted({key for group in groups for key in group.config})
    differing = [key for key in keys if len({group.config.get(key) for group in groups}) > 1]
    parts = []
    if differing:
        heads = [Head("key", text=True), *(Head(group.label, text=True) for group in groups)]
        rows = [
            [Cell(f"<code>{escape(key)}</code>", key)]
            + [
                Cell(escape(value), value)
                for value in (group.config.get(key, "–") for group in groups)
            ]
            for key in differing
        ]
        note = caption("Seeds and file locations are left out; every other key is equal.")
        parts.append(
            details(
                f"What differs: {len(differing)} settings",
                table(heads, rows, "Settings that differ"),
                note,
            )
        )
    parts += [_configuration(comparison, group, set(differing)) for group in groups]
    return section("Configurations", *parts)


def _configuration(comparison: Comparison, group: Group, differing: set[str]) -> str:
    number = comparison.number(group)
    lines = "\n".join(
        f"<mark>{line}</mark>" if key in differing else line
        for key, value in sorted(group.config.items())
        for line in [escape(f"{key}: {value}")]
    )
    folders = "".join(
        f"<li>seed {_seed(run)}: <code>{escape(run_name(run, comparison.records))}</code>"
        f" {escape(_result(run)) or escape(run.status)}</li>"
        for run in group.runs
    )
    return details(
        f"{_swatch(number)}{escape(group.label)}",
        f'<div id="config-{number}"><ul class="folders">{folders}</ul><pre>{lines}</pre></div>',
        kind="config",
    )


def runs(comparison: Comparison) -> str:
    """Every run that was found, also those that do not count, with the reason."""
    reasons = {run.folder: reason for run, reason in comparison.uncounted}
    heads = [
        Head("run", text=True), Head("model", text=True), Head("tokenizer", text=True),
        Head("seed"), Head("status", text=True), Head("test"),
        Head("why it is not counted" if reasons else "", text=True, kind="why"),
    ]  # fmt: skip
    rows = []
    for run in sorted(comparison.records, key=lambda run: (run.folder in reasons, _natural(run))):
        reason = reasons.get(run.folder)
        name, number = run_name(run, comparison.records), _number_of(run, comparison)
        result = _result(run) if reason is None else ""
        rows.append(
            [
                Cell(f"<code>{_link_if(name, number)}</code>", name),
                Cell(escape(run.model), run.model),
                Cell(escape(run.tokenizer), run.tokenizer),
                Cell(_link_if(_seed(run), number), "" if run.seed is None else run.seed),
                Cell(escape(run.status), run.status, "" if reason is None else "open"),
                Cell(_link_if(result, number), result.split(" ")[0]),
                Cell(escape(plain(reason or "")), reason or ""),
            ]
        )
    return section("Every run", table(heads, rows, "Every run"))


def _natural(run: RunRecord) -> list[tuple[int, str]]:
    """2-gpt comes before 10-gpt."""
    parts = re.findall(r"\d+|\D+", str(run.folder))
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _link_if(text: str, number: int | None) -> str:
    return escape(text) if number is None else link(text, number)


def _number_of(run: RunRecord, comparison: Comparison) -> int | None:
    groups = enumerate(comparison.configurations)
    return next((n for n, group in groups if any(own is run for own in group.runs)), None)


def _result(run: RunRecord) -> str:
    own = lossy_score(run) if not run.lossless else ranking_score(run)
    unit = "nats/token" if not run.lossless else "bits/byte"
    return "" if own is None else f"{own:.3f} {unit}"


def _seed(run: RunRecord) -> str:
    return "?" if run.seed is None else f"{run.seed:g}"
