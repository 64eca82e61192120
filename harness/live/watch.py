"""The current state of the runs in some folders."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from time import monotonic, time
from typing import Any

from harness.common import contained
from harness.common.text import printable
from harness.config.settings import CURRENCIES
from harness.live.curves import LiveMetrics
from harness.report.records.runs import DAMAGED, RunRecord, read_run
from harness.report.records.selection import split_to_show, without_test
from harness.runs import certificate, config, metrics, process, samples, summary
from harness.runs.damage import DamageError, is_finite
from harness.runs.find import walk

RESCAN_SECONDS = 2.0
WALK_REST = 10  # times as long as a walk through the folders took, it rests
READ_SECONDS = 0.2  # of an answer goes into what was not read yet,
REREAD_SECONDS = 0.05  # and into what may have changed
MOST_RUNS = 20_000
MOST_READ, CURVES_MEMORY = 256, 1 << 28  # runs whose curves are in memory, and its bytes
MOST_TEXT = 300  # characters of a name or an error in the list
FILES = (summary.FILE, config.FILE, certificate.FILE, metrics.FILE)
LEAST = 32  # folders looked at in any case


class _Share:
    """Seconds to spend; in them at least LEAST things are done, however slow the machine is."""

    def __init__(self, seconds: float) -> None:
        self._until = monotonic() + seconds
        self._done = 0

    def is_spent(self) -> bool:
        """Asked before each thing."""
        self._done += 1
        return self._done > LEAST and monotonic() > self._until


SILENT_SECONDS = 600.0
MOST_SAMPLES = 40
SAMPLE_CHARACTERS = 4000
SAMPLES_BYTES = 1 << 17
LOG_BYTES = 1 << 14

Card = dict[str, Any]


class LiveRun:
    """One run's folder. Requests name it by `id`, so that no path ever comes from a request."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.id = _id(folder)
        self.card: Card | None = None  # None: not read yet
        self._stamp: Any = None
        self._record: RunRecord  # but for what takes much memory and no card needs
        self._budget: tuple[str, float | None]

    def look(self) -> None:
        """Make the card again if the run has changed. Whatever the folder holds, there is one."""
        stamp = [_stamp(self.folder / name) for name in FILES]
        if self.card is not None and stamp == self._stamp:
            if self._record.status != "running":
                return
        elif self.card is None or stamp[:-1] != self._stamp[:-1]:  # else only more rows
            self._read()
        self._stamp = stamp
        try:
            self.card = self._make_card()
        except Exception as error:
            self._set_unreadable(error)
            self.card = self._make_card()

    def _read(self) -> None:
        try:
            # Most of the time goes into a configuration, which only an unfinished run's card needs.
            finished = summary.status_of(self.folder) == "finished"
            record = read_run(self.folder, with_metrics=False, with_config=not finished)
            if split_to_show([record]) == "val":
                record = without_test(record)
            self._budget = _budget(record.config)
            self._record = replace(
                record, config={}, sample=None, blocks=None, versions={}, git={}, machine={}
            )
        except Exception as error:
            self._set_unreadable(error)

    def _set_unreadable(self, error: Exception) -> None:
        """No folder, however odd, takes the list down."""
        why = f"can't be read ({type(error).__name__}: {error})"
        self._budget, self._record = ("steps", None), RunRecord(self.folder, DAMAGED, why)

    def _make_card(self) -> Card:
        """What the list shows of it; no field is ever missing, unknown ones are None."""
        record, rows = self._record, self.folder / metrics.FILE
        last = metrics.last_row(rows) if record.status == "running" else None
        row = {name: value for name, value in (last or {}).items() if is_finite(value)}
        status, alive = self._status()
        currency, total = self._budget
        spent = row.get(
            "step" if currency == "steps" else currency, getattr(record.train, currency)
        )
        seconds = row.get("seconds", record.train.seconds)
        speed = record.train.tokens_per_second
        if row.get("seconds") and "tokens" in row:
            speed = row["tokens"] / row["seconds"]
        share = min(1.0, spent / total) if total and spent is not None else None
        val, test = record.val, record.test
        return {
            "id": self.id,
            "folder": _shown(self.folder),
            "status": status,
            "error": _short(record.error),
            "model": _short(record.model),
            "tokenizer": _short(record.tokenizer),
            "data": _short(record.data),
            "seed": record.seed,
            "lossless": record.lossless,
            "share": 1.0 if status == "finished" else share,
            "seconds": seconds,
            "seconds_left": seconds * (1 / share - 1) if alive and share and seconds else None,
            "step": row.get("step", record.train.steps),
            "loss": row.get("train/loss"),
            "val": val and val.bits_per_byte,
            "val_nats": val and val.nats_per_token,
            "test": test and test.bits_per_byte,
            "test_nats": test and test.nats_per_token,
            "certificate": self._certificate(),
            "parameters": record.parameters,
            "active": record.active,
            "flops_per_token": record.flops_per_token,
            "tokens_per_second": speed,
            "peak_memory_bytes": record.train.peak_memory_bytes,
            "begun": _changed(self.folder / config.FILE),
            "changed": max(_changed(rows), _changed(self.folder / summary.FILE)),
            "in_sweep": os.path.exists(self.folder.parent / "multirun.yaml"),
            "can_stop": alive is True,
            "can_resume": status in ("stopped", "lost")
            and os.path.exists(self.folder / config.FILE),
        }

    def _certificate(self) -> str | None:
        """Whether its score may be ranked, in words; None before there is one."""
        record = self._record
        done = record.test is not None or (not record.has_test and record.status == "finished")
        if not done:
            return None
        if record.val is not None and record.val.share is not None:
            return f"not ranked: validation was scored in part, {100 * record.val.share:.3g} %"
        if record.uncertified is not None:
            return f"not certified: {record.uncertified}"
        return f"certified, {'every token' if record.complete else 'a sample'} scored again"

    def _status(self) -> tuple[str, bool | None]:
        """What the summary says, unless the run died before it could say so; whether it lives."""
        status = self._record.status
        if status != "running":
            return status, False
        alive = process.is_alive(self.folder)
        if alive is None and time() - _changed(self.folder / metrics.FILE) > SILENT_SECONDS:
            return "silent", None  # on another machine, perhaps: who knows
        return ("lost" if alive is False else "running"), alive

    def details(self) -> dict[str, Any]:
        """What its own page shows beside the card and the curves."""
        record = read_run(self.folder, with_metrics=False)
        return {
            "config": _config(self.folder / config.FILE),
            "flat_config": record.config,
            "samples": _samples(self.folder / samples.FILE),
            "log": contained.read_tail(self.folder / "train.log", LOG_BYTES).decode(
                errors="replace"
            ),
            "versions": record.versions,
            "git": record.git,
            "machine": record.machine,
            "corpus": record.corpus,
        }


class LiveRuns:
    """The runs at any depth below some folders: the first MOST_RUNS of them. Thread-safe.

    beyond: how many more there are.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self.folders = [folder.absolute() for folder in folders]
        self.beyond = 0
        self._runs: dict[str, LiveRun] = {}
        self._metrics: OrderedDict[str, LiveMetrics] = OrderedDict()
        self._walk: Iterator[Path | None] = iter(())
        self._found: set[str] = set()
        self._beyond = 0
        self._walking, self._walked = False, 0.0  # seconds that this walk has taken
        self._next_walk = 0.0
        self._unread: list[tuple[float, LiveRun]] = []
        self._turn: deque[LiveRun] = deque()
        self._lock = threading.Lock()

    def add(self, folder: Path) -> LiveRun:
        """Also follow this run."""
        with self._lock:
            if folder in self.folders:  # it is found, or gone by now
                run = LiveRun(folder.resolve())
                return self._runs.get(run.id, run)
            self.folders.append(folder)
            run = self._add(folder.resolve())
            self._found.add(run.id)  # the walk under way does not come there
            return run

    def get(self, name: str) -> LiveRun | None:
        """The run of this id."""
        return self._runs.get(name)

    def metrics(self, run: LiveRun) -> LiveMetrics:
        """Its curves. Those of the runs that were asked for last are kept in memory."""
        with self._lock:
            found = self._metrics.setdefault(run.id, LiveMetrics(run.folder / metrics.FILE))
            self._metrics.move_to_end(run.id)
            used = sum(each.memory for each in self._metrics.values())
            while len(self._metrics) > 1 and (
                used > CURVES_MEMORY or len(self._metrics) > MOST_READ
            ):
                used -= self._metrics.popitem(last=False)[1].memory
            return found

    def look(self, first: Iterable[str] = ()) -> list[LiveRun]:
        """Looks for a part of a second at what is new or has changed, the runs `first` before all
        others, and goes on at the next call. Returns every run found; those without a card are yet
        to be read."""
        with self._lock:
            self._go_on_walking(_Share(REREAD_SECONDS))
            share, looked = _Share(REREAD_SECONDS), set()
            for run in filter(None, map(self._runs.get, first)):
                if share.is_spent():
                    break
                run.look()
                looked.add(run.id)
            share = _Share(READ_SECONDS)
            while self._unread and not share.is_spent():
                _, run = self._unread.pop()
                run.look()
                looked.add(run.id)
                self._turn.append(run)
            share = _Share(REREAD_SECONDS)
            for _ in range(len(self._turn)):
                if share.is_spent():
                    break
                run = self._turn.popleft()
                if self._runs.get(run.id) is run:
                    self._turn.append(run)
                    if run.id not in looked:
                        run.look()
            return list(self._runs.values())

    def _add(self, folder: Path) -> LiveRun:
        run = self._runs.get(_id(folder))
        if run is None:
            run = self._runs[_id(folder)] = LiveRun(folder)
            self._unread.append((_changed(folder), run))
        return run

    def _go_on_walking(self, share: _Share) -> None:
        """Looks for new and removed folders, for a small part of the time."""
        begun = monotonic()
        if not self._walking:
            if begun < self._next_walk:
                return
            self._walk, self._found, self._beyond = _walk(list(self.folders)), set(), 0
            self._walking, self._walked = True, 0.0
        for folder in self._walk:
            if folder is not None:
                if len(self._runs) < MOST_RUNS or _id(folder) in self._runs:
                    self._found.add(self._add(folder).id)
                else:
                    self._beyond += 1
            if share.is_spent():
                break
        else:
            self._walking = False
            self._runs = {name: run for name, run in self._runs.items() if name in self._found}
            self.beyond = self._beyond
        self._walked += monotonic() - begun
        self._next_walk = monotonic() + max(RESCAN_SECONDS, WALK_REST * self._walked)
        left = [each for each in self._unread if each[1].id in self._runs]
        self._unread = sorted(left, key=itemgetter(0))  # the newest is read first: from the end


def _walk(folders: Sequence[Path]) -> Iterator[Path | None]:
    """Every folder that holds a run; None for each that does not."""
    for top in folders:
        for folder in walk(top.resolve()):
            # A run that is there and linked to is listed once.
            yield folder.resolve() if folder is not None and folder.is_symlink() else folder


def _id(folder: Path) -> str:
    return hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]


def _short(text: str | None) -> str | None:
    return text if text is None or len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]}…"


def _budget(settings: Mapping[str, str]) -> tuple[str, float | None]:
    """Currency and amount, from the flat configuration."""
    for currency in CURRENCIES:
        try:
            return currency, float(settings[f"train.{currency}"])
        except (KeyError, ValueError):
            continue
    return "steps", None


def _samples(path: Path) -> list[dict[str, Any]]:
    """The last samples: [{"step", "text"}]."""
    last = samples.read(path, SAMPLES_BYTES)[-MOST_SAMPLES:]
    return [{"step": step, "text": printable(text)[:SAMPLE_CHARACTERS]} for step, text in last]


def _config(path: Path) -> Any:
    """Its settings as JSON values; its text where no run would have written it."""
    try:
        text = contained.read_text(path)
    except OSError:
        return ""
    try:
        return json.loads(json.dumps(config.parse_yaml(text), default=str))
    except (DamageError, RecursionError, ValueError, TypeError):
        return text


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Changes whenever the file does; None if there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _changed(path: Path) -> float:
    """The time of its last change, in seconds since 1970; 0 if it is not there."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _shown(folder: Path) -> str:
    """Relative to the working directory where it lies below it."""
    try:
        return str(folder.relative_to(Path.cwd()))
    except (ValueError, OSError):  # it lies elsewhere, or the working directory is gone
        return str(folder)
