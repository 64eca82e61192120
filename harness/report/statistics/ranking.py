"""Groups ranked by bits per byte, and every pair of them tested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness.report.records.groups import (
    Group,
    by_data,
    disambiguate_corpora,
    group_runs,
)
from harness.report.records.names import run_names
from harness.report.records.runs import RunRecord
from harness.report.records.selection import Split, split_to_show, without_test
from harness.report.statistics.differences import Pair, compare_pairs


@dataclass(frozen=True)
class Comparison:
    """ranked: groups by data set, then by mean bits per byte, lowest first. lossy: unranked
    groups with a lossy tokenizer. unscored: groups without a score. uncounted: runs that count in
    no group's score, with the reason. pairs: all pairs of ranked groups of one data set, tested.
    split: which one they are compared on; on validation the records have no test score, and pairs
    are not tested. is_ladder: the groups are steps, in the order of their names, and what each
    gains over the one before is shown.
    """

    records: tuple[RunRecord, ...]
    ranked: tuple[Group, ...]
    lossy: tuple[Group, ...]
    unscored: tuple[Group, ...]
    uncounted: tuple[tuple[RunRecord, str], ...]
    pairs: tuple[Pair, ...]
    split: Split = "test"
    is_ladder: bool = False

    @property
    def groups(self) -> tuple[Group, ...]:
        """All groups with a score, in the order of the report."""
        return self.ranked + self.lossy

    @property
    def configurations(self) -> tuple[Group, ...]:
        """All groups, those without a score last; a group's number is its index here."""
        return self.groups + self.unscored

    def number(self, group: Group) -> int:
        """The number of the group's line style, and of its configuration on the page."""
        return self._numbers[id(group)]

    @cached_property
    def _numbers(self) -> dict[int, int]:
        return {id(group): number for number, group in enumerate(self.configurations)}

    @cached_property
    def names(self) -> dict[Path, str]:
        """A short name for the folder of each run."""
        return run_names([run.folder for run in self.records])

    def by_data(self) -> dict[str, list[Group]]:
        """The ranked groups of each data set."""
        return by_data(self.ranked)


def compare_runs(records: Sequence[RunRecord], split: Split | None = None) -> Comparison:
    """Group runs over their seeds, rank the groups, and test them in pairs. split: None for
    validation while there is something to choose (`split_to_show`)."""
    split = split or split_to_show(records)
    if split == "val":
        records = [without_test(run) for run in records]
    records = disambiguate_corpora(records)
    groups, uncounted = group_runs(records, split)
    scored = [group for group in groups if group.counted]
    ranked = sorted((group for group in scored if group.counted[0].lossless), key=_rank_key)
    lossy = [group for group in scored if not group.counted[0].lossless]
    return Comparison(
        records=tuple(records),
        ranked=tuple(ranked),
        lossy=tuple(sorted(lossy, key=lambda group: group.label)),
        unscored=tuple(group for group in groups if not group.counted),
        uncounted=tuple(uncounted),
        pairs=compare_pairs(ranked) if split == "test" else (),
        split=split,
    )


def _rank_key(group: Group) -> tuple[str, float, str]:
    spread = group.score
    assert spread is not None  # a counted lossless run has this number
    return group.data, spread.mean, group.label
