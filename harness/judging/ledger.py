"""The ledger: every try, at what level it is judged, its verdict, and each reading of test.

ledger.jsonl, one record a line. Each line holds the digest of the line before it, so that an entry
that was changed or taken out is seen, and so is a ledger that lacks a line whose digest somebody
kept (`receipt` in a verdict). Whoever may write the file can still write a whole new one.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.common.errors import RunFailure
from harness.common.files import write_atomically, writing
from harness.common.rows import strict_json
from harness.judging.evidence import BETTER
from harness.judging.online import level_of_try
from harness.runs.summary import Number, Record

FILE = "ledger.jsonl"
START = "0" * 64
SEEDS = 2**31


class Try(Record):
    """Written before its first training. identity: of both sides, their code and the margin. key:
    random; it gives the seeds, so that nobody knows them before the try is counted."""

    number: int
    time: str
    candidate: str
    baseline: str
    identity: str
    margin: float
    level: float
    key: str
    git: dict[str, Any]

    def seed(self, side: str, pair: int) -> int:
        """Of a training: fresh in each try, and another one for each side."""
        drawn = hashlib.sha256(f"{self.key} {side} {pair}".encode()).hexdigest()
        return int(drawn, 16) % SEEDS


class Outcome(Record):
    """What a try ended with. low, high: None while infinite."""

    number: int
    time: str
    verdict: str | None
    pairs: int
    mean: Number
    low: Number | None
    high: Number | None


class Reading(Record):
    """Written before test is read; with scores, in bits per byte, after it."""

    number: int
    time: str
    candidate: Number | None = None
    baseline: Number | None = None


KINDS: dict[str, type[Record]] = {"try": Try, "outcome": Outcome, "test": Reading}


@dataclass
class Entries:
    """The ledger as read. receipt: the digest of its last line."""

    records: list[Record] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    @property
    def receipt(self) -> str:
        return _digest(self.lines[-1]) if self.lines else START

    @property
    def tries(self) -> list[Try]:
        return [record for record in self.records if isinstance(record, Try)]

    def outcome(self, number: int) -> Outcome | None:
        """The last one of a try; None while it is open."""
        found = [r for r in self.records if isinstance(r, Outcome) and r.number == number]
        return found[-1] if found else None

    def readings(self, number: int | None = None) -> list[Reading]:
        """Of test: by this try, or by all."""
        found = [record for record in self.records if isinstance(record, Reading)]
        return [each for each in found if number in (None, each.number)]

    def standing(self, identity: str) -> Try | None:
        """The try of the same two sides; the command goes on with it, or shows its verdict."""
        found = [each for each in self.tries if each.identity == identity]
        return found[-1] if found else None

    def next_level(self) -> tuple[int, float]:
        """The number of the next try and its level."""
        number = len(self.tries) + 1
        outcomes = [self.outcome(each.number) for each in self.tries]
        found = sum(outcome is not None and outcome.verdict == BETTER for outcome in outcomes)
        return number, level_of_try(number, found)


class Ledger:
    """The file in a folder, which also holds the trainings of each try."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / FILE

    def read(self) -> Entries:
        """Raises RunFailure for what no judge writes."""
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return Entries()
        except (OSError, UnicodeError) as error:
            raise RunFailure(f"{self.path} can't be read: {error}") from error
        entries = Entries()
        for number, line in enumerate(text.splitlines(), 1):
            try:
                plain = json.loads(line)
                record = KINDS[plain["kind"]].model_validate(plain)
            except (ValueError, KeyError, TypeError, RecursionError, ValidationError) as error:
                raise RunFailure(f"{self.path}: line {number} is no entry of a ledger") from error
            if plain.get("previous") != entries.receipt:
                raise RunFailure(
                    f"{self.path}: line {number} does not follow from the line before it: the "
                    "ledger was edited; nothing is judged by it"
                )
            entries.records.append(record)
            entries.lines.append(line)
        return entries

    def append(self, kind: str, **values: Any) -> Record:
        """Write an entry; returns it. Raises RunFailure."""
        with self.adding() as (_, add):
            return add(kind, **values)

    @contextmanager
    def adding(self) -> Iterator[tuple[Entries, Any]]:
        """Inside, nobody else writes. Gives the entries and a function that adds one."""
        with writing(self.path):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / f"{FILE}.lock").open("a")
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            entries = self.read()

            def add(kind: str, **values: Any) -> Record:
                now = datetime.now(UTC).isoformat(timespec="seconds")
                record = KINDS[kind].model_validate({"time": now, **values})
                plain = {"kind": kind, **record.model_dump(), "previous": entries.receipt}
                entries.records.append(record)
                entries.lines.append(strict_json(plain))
                write_atomically(self.path, ("\n".join(entries.lines) + "\n").encode())
                return record

            yield entries, add


def _digest(line: str) -> str:
    return hashlib.sha256(line.encode()).hexdigest()
