"""A stranger's certificate is believed by nobody: it is made anew before anything is ranked."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

from harness.common.errors import RunFailure
from harness.referee.verify import verify_run
from harness.report.records.runs import RunRecord, read_run


def certify_strangers(records: Sequence[RunRecord], *, complete: bool) -> list[RunRecord]:
    """The records, those with a certificate that was not made here with one that was. It is kept in
    the run's folder if that can be written. complete: score every token again, not a sample.

    Only code of the zoo is loaded: a run of other classes stays apart.
    """
    return [
        _anew(run, complete) if run.is_strangers and run.status == "finished" else run
        for run in records
    ]


def _anew(run: RunRecord, complete: bool) -> RunRecord:
    _say(f"{run.folder}: {run.uncertified}; making it anew")
    try:
        made = verify_run(run.folder, complete=complete, device="cpu", trust=[])
    except Exception as error:  # whatever is wrong with a stranger's run, the others are compared
        words = " ".join(str(error).split()) or type(error).__name__
        return replace(run, uncertified=f"{run.uncertified}, and it can't be made anew: {words}")
    try:
        made.write(run.folder)
    except RunFailure as error:
        _say(f"the new certificate is not kept: {error}")
    found = read_run(run.folder, certified=made.sealed())
    _say(f"{run.folder}: {made.words}")
    return found


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
