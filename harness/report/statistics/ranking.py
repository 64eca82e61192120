"""Groups ranked by test bits per byte, and every two of them tested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.report.records.groups import Group, group_runs, ranking_score, tell_corpora_apart
from harness.report.records.runs import RunRecord
from harness.report.statistics.differences import Pair, compare_pairs


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

    def by_data(self) -> dict[str, list[Group]]:
        """The ranking of each data set."""
        found: dict[str, list[Group]] = {}
        for group in self.ranked:
            found.setdefault(group.data, []).append(group)
        return found


def compare_runs(records: Sequence[RunRecord]) -> Comparison:
    """Groups runs over their seeds, sorts the groups, and tests them in pairs."""
    records = tell_corpora_apart(records)
    groups, uncounted = group_runs(records)
    scored = [group for group in groups if group.counted]
    ranked = sorted((group for group in scored if group.counted[0].lossless), key=_rank_key)
    lossy = [group for group in scored if not group.counted[0].lossless]
    return Comparison(
        records=tuple(records),
        ranked=tuple(ranked),
        lossy=tuple(sorted(lossy, key=lambda group: group.label)),
        unscored=tuple(group for group in groups if not group.counted),
        uncounted=tuple(uncounted),
        pairs=compare_pairs(ranked),
    )


def _rank_key(group: Group) -> tuple[str, float, str]:
    spread = group.spread(ranking_score)
    assert spread is not None  # a counted lossless run has this number
    return group.data, spread.mean, group.label
