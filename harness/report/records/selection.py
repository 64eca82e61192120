"""What has not been chosen is compared on validation: selection never reads test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from harness.report.records.runs import UNKNOWN, RunRecord
from harness.runs.test_reads import log_test_read

Split = Literal["val", "test"]
WORDS: dict[Split, str] = {"val": "validation", "test": "test"}


def split_to_show(runs: Sequence[RunRecord]) -> Split:
    """The split that these runs may be compared on without `--split test`.

    "val" while there is something to choose: a run is a candidate of a search or of a sweep over
    variants, or several configurations of one model are among the runs. And where no run has a test
    split. Else "test". Counted models are floors, and are chosen by validation anyhow.
    """
    if without_test_split(runs):
        return "val"
    variants: dict[tuple[str, str, str], set[frozenset[tuple[str, str]]]] = {}
    for run in runs:
        if run.test is not None and run.state is None and run.config and run.model != UNKNOWN:
            of_model = variants.setdefault((run.model, run.tokenizer, run.data), set())
            of_model.add(frozenset(run.config.items()))
    chosen = all(len(configs) == 1 for configs in variants.values())
    return "test" if chosen and not any(run.candidate for run in runs) else "val"


def without_test_split(runs: Sequence[RunRecord]) -> bool:
    """Whether all that can be ranked is validation: no run has a test score, and not by choice."""
    return not any(run.test for run in runs) and any(run.val and not run.has_test for run in runs)


def without_test(run: RunRecord) -> RunRecord:
    """The run as it may be seen before the choice."""
    copied = None if run.has_test else run.without_copied
    return replace(run, test=None, blocks=None, compressors={}, without_copied=copied)


def log_reading(runs: Sequence[RunRecord], command: str) -> None:
    """Before test is shown for runs that are to be chosen from: log it in the folder of each.
    Raises RunFailure where it can't be logged."""
    if split_to_show(runs) == "val":
        for run in runs:
            if run.candidate or run.test is not None:
                log_test_read(run.folder, command)
