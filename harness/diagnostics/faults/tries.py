"""Many tries, each in a process and a folder of its own, and the table of how they ended."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from harness.common.errors import RunFailure, UsageError
from harness.diagnostics.faults.life import preload

HARMLESS = ("equal", "noticed")
VERDICTS = (*HARMLESS, "loss", "silence", "leftover", "traceback", "hang")


@dataclass(frozen=True)
class Result:
    """How a try ended.

    group: its line of the table. what: was done. verdict: one of VERDICTS; equal: as if nothing had
    happened; noticed: in one line; loss: work can't be gone on with; silence: another result, and
    no word; leftover: a file that is nobody's. detail: the words, or what differs. times: how often
    it was done.
    """

    group: str
    what: str
    verdict: str
    detail: str = ""
    peak_bytes: int = 0
    times: int = 1

    @property
    def line(self) -> str:
        return f"{self.verdict}: {self.group}: {self.what}: {self.detail}"


class Known(NamedTuple):
    """A fault that is known to remain: it is listed, and fails no drill. pattern: of its line."""

    pattern: str
    reason: str


_PLAIN_TEXT = (
    "plain text of a run that was killed, before it could write digests: another digit or letter "
    "is no damage that could be seen; no weight depends on it, nor do a resumed run's scores"
)
KNOWN = (
    Known(r"^silence: killed: run/metrics\.jsonl: .*: step \d+: ", _PLAIN_TEXT),
    Known(r"^silence: killed: run/samples\.txt: .*: samples\.txt differs$", _PLAIN_TEXT),
)


@dataclass(frozen=True)
class Options:
    """tries: their number. seed: of all that is drawn. settings: that the user adds to the small
    trainings. minutes: of fuzzing, all readers together."""

    tries: int = 1
    seed: int = 0
    settings: tuple[str, ...] = ()
    minutes: float = 1.0


Attempt = Callable[[Path], Sequence[Result]]
"""One try, in an empty folder, and how what it tried ended."""


def run_tries(attempts: Mapping[int, Attempt], folder: Path, jobs: int) -> list[Result]:
    """Run each in a fork of this process, `jobs` at a time. The folders of harmless ones are
    removed."""
    waiting, running = list(attempts), dict[int, int]()
    results: list[Result] = []
    try:
        with tqdm(total=len(attempts), unit=" tries", disable=None, dynamic_ncols=True) as bar:
            while waiting or running:
                while waiting and len(running) < jobs:
                    number = waiting.pop(0)
                    running[_fork(attempts[number], folder / str(number))] = number
                pid, _ = os.wait()
                number = running.pop(pid)
                found = _collect(folder / str(number), number)
                for fault in (each for each in found if each.verdict not in HARMLESS):
                    bar.write(f"try {number}: {fault.line}", file=sys.stderr)
                results += found
                bar.update()
    finally:
        for pid in running:  # after a signal, or a try that failed itself
            os.kill(pid, signal.SIGTERM)
    return results


def _fork(attempt: Attempt, folder: Path) -> int:
    folder.mkdir(parents=True)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        try:
            results = [asdict(result) for result in attempt(folder)]
            (folder / "results.json").write_text(json.dumps(results))
        except BaseException:
            (folder / "drill-failed.txt").write_text(traceback.format_exc())
        finally:
            os._exit(0)
    return pid


def _collect(folder: Path, number: int) -> list[Result]:
    """Raises RunFailure if the try itself failed."""
    try:
        read = json.loads((folder / "results.json").read_text())
    except (OSError, ValueError) as error:
        raise RunFailure(f"try {number} failed itself: {folder}/drill-failed.txt") from error
    results = [Result(**each) for each in read]
    if all(result.verdict in HARMLESS for result in results):
        shutil.rmtree(folder)
    return results


def run_drill(
    make: Callable[[Options, Path], Mapping[int, Attempt]],
    options: Options,
    jobs: int,
    only: int | None,
    as_json: bool,
) -> int:
    """Make the tries and run them, or `only` one. Prints their table; returns the exit code."""
    began = time.monotonic()
    preload()
    folder = Path(tempfile.mkdtemp(prefix="drill-"))
    attempts = make(options, folder / "whole")
    if only is not None:
        if only not in attempts:
            raise UsageError(f"--only {only}: there are tries 0 to {len(attempts) - 1}")
        attempts = {only: attempts[only]}
    results = run_tries(attempts, folder / "tries", jobs)
    code = report(results, KNOWN, began, as_json)
    if code == 0:
        shutil.rmtree(folder)
    else:
        print(f"what was found is kept: {folder}/tries", file=sys.stderr)
    return code


def report(results: Sequence[Result], known: Sequence[Known], began: float, as_json: bool) -> int:
    """Print the table, or JSON; returns the exit code: 0 if nothing but known faults was found.

    began: by time.monotonic().
    """
    faults = {
        result: next((each.reason for each in known if re.search(each.pattern, result.line)), None)
        for result in results
        if result.verdict not in HARMLESS
    }
    groups = dict.fromkeys(result.group for result in results)
    rows = {name: _counts([each for each in results if each.group == name]) for name in groups}
    rows["all"] = _counts(results)
    if as_json:
        faulty = [asdict(fault) | {"reason": reason} for fault, reason in faults.items()]
        seconds = round(time.monotonic() - began, 1)
        print(json.dumps({"seconds": seconds, "rows": rows, "faults": faulty}))
    else:
        _print_table(rows)
        for fault, reason in faults.items():
            print(f"{fault.line}" + (f" (known: {reason})" if reason else ""))
    return int(None in faults.values())


def _counts(results: Sequence[Result]) -> dict[str, int]:
    verdicts = Counter[str]()
    for result in results:
        verdicts[result.verdict] += result.times
    return {
        "tried": sum(result.times for result in results),
        **{verdict: verdicts[verdict] for verdict in VERDICTS},
        "peak MB": max((result.peak_bytes for result in results), default=0) // 10**6,
    }


def _print_table(rows: Mapping[str, Mapping[str, Any]]) -> None:
    """As Markdown."""
    columns = ["", *rows["all"]]
    lines = [[name, *map(str, counts.values())] for name, counts in rows.items()]
    widths = [max(map(len, column)) for column in zip(columns, *lines, strict=True)]
    for line in (columns, ["-" * width for width in widths], *lines):
        cells = (f"{cell:{'<' if at == 0 else '>'}{widths[at]}}" for at, cell in enumerate(line))
        print(f"| {' | '.join(cells)} |")
