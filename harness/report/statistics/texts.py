"""Scores on several texts: validation or test, those of a mix, and further ones of one's own.

A text is known by its content, whatever a run calls it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.report.records.groups import Group, Spread
from harness.report.records.runs import RunRecord
from harness.report.records.selection import Split
from harness.report.statistics.ranking import Comparison
from harness.runs.summary import TextScore

Text = tuple[str, ...]
"""The digest of a text; of a part of one also the shares and which part it is."""
Name = tuple[str, str]
"""What a text is called, and which part of it it is."""


@dataclass(frozen=True)
class TextRank:
    """A score in bits per byte, and its rank among those of the same text."""

    score: Spread
    rank: int


@dataclass(frozen=True)
class TextTable:
    """names: of the texts, in the order of the columns. rows: each ranked group that has a score on
    one of them."""

    names: Mapping[Text, Name]
    rows: Sequence[tuple[Group, Mapping[Text, TextRank]]]


def text_table(comparison: Comparison) -> TextTable | None:
    """Of the runs that are ranked. None if no group has scores on several texts."""
    names: dict[Text, Name] = {}
    found: list[tuple[Group, dict[Text, Spread]]] = []
    for group in comparison.ranked:
        scores = {run.folder: _scores(run, comparison.split, names) for run in group.counted}
        spreads = {text: _spread(group, scores, text) for text in names}
        found.append((group, {text: each for text, each in spreads.items() if each is not None}))
    if all(len(spreads) < 2 for _, spreads in found):
        return None
    means = {
        text: sorted(spreads[text].mean for _, spreads in found if text in spreads)
        for text in names
    }
    rows = [
        (
            group,
            {text: TextRank(own, 1 + means[text].index(own.mean)) for text, own in each.items()},
        )
        for group, each in found
    ]
    return TextTable(_distinct({text: name for text, name in names.items() if means[text]}), rows)


def _spread(group: Group, scores: Mapping[Path, Mapping[Text, float]], text: Text) -> Spread | None:
    return group.spread(lambda run: scores[run.folder].get(text))


def _scores(run: RunRecord, split: Split, names: dict[Text, Name]) -> dict[Text, float]:
    """Of a run in bits per byte; names each text the first time."""
    found: dict[Text, float] = {}
    for text, name, score in _texts(run, split):
        if score.bits_per_byte is not None:
            names.setdefault(text, name)
            found.setdefault(text, score.bits_per_byte)
    return found


def _texts(run: RunRecord, split: Split) -> Iterator[tuple[Text, Name, TextScore]]:
    own = getattr(run, split)
    shares = run.config.get("data.split", "")
    if own is not None:
        part = f"{split}, all bytes" if own.texts else split
        yield (run.corpus, shares, split), (run.data, part), own
        for name, score in (own.texts or {}).items():
            if (text := run.mixed.get(name)) is not None:
                yield (text.sha256, shares, split), (name, split), score
    for name, score in [*run.also.items(), *run.evaluated.items()]:
        if score.sha256 is not None:  # as in runs of earlier versions
            yield (score.sha256,), (name, "text"), score


def _distinct(names: Mapping[Text, Name]) -> dict[Text, Name]:
    """With the start of the digest where texts share a name."""
    often = Counter(names.values())
    return {
        text: (f"{name}·{text[0][:6]}", part) if often[name, part] > 1 else (name, part)
        for text, (name, part) in names.items()
    }
