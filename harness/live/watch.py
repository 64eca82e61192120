"""The current state of the runs in some folders."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from time import monotonic, time
from typing import Any

from harness.common.files import read_tail
from harness.common.text import printable
from harness.config.settings import CURRENCIES
from harness.live.curves import LiveMetrics
from harness.report.records.runs import RunRecord, read_run, run_folders
from harness.runs import certificate, config, metrics, process, samples, summary
from harness.runs.damage import DamageError, is_finite

RESCAN_SECONDS = 2.0
SILENT_SECONDS = 600.0
MOST_SAMPLES = 40
SAMPLE_CHARACTERS = 4000
SAMPLES_BYTES = 1 << 17
LOG_BYTES = 1 << 14
CONFIG_BYTES = 1 << 17

FILES = (summary.FILE, config.FILE, certificate.FILE)
Card = dict[str, Any]


class LiveRun:
    """One run's folder. Requests name it by `id`, so that no path ever comes from a request."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.id = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
        self.metrics = LiveMetrics(folder / metrics.FILE)
        self._read: tuple[Any, RunRecord] | None = None

    @property
    def record(self) -> RunRecord:
        """Its summary and configuration, read again when they have changed."""
        now = [_stamp(self.folder / name) for name in FILES]
        if self._read is None or self._read[0] != now:
            self._read = now, read_run(self.folder, with_metrics=False)
        return self._read[1]

    def card(self) -> Card:
        """What the list shows of it; no field is ever missing, unknown ones are None."""
        record, rows = self.record, self.folder / metrics.FILE
        last = metrics.last_row(rows) if record.status == "running" else None
        row = {name: value for name, value in (last or {}).items() if is_finite(value)}
        status, alive = self._status()
        currency, total = _budget(record.config)
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
            "error": record.error,
            "model": record.model,
            "tokenizer": record.tokenizer,
            "data": record.data,
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
            "flops_per_token": record.flops_per_token,
            "tokens_per_second": speed,
            "peak_memory_bytes": record.train.peak_memory_bytes,
            "begun": _changed(self.folder / config.FILE),
            "changed": max(_changed(rows), _changed(self.folder / summary.FILE)),
            "in_sweep": (self.folder.parent / "multirun.yaml").exists(),
            "can_stop": alive is True,
            "can_resume": status in ("stopped", "lost") and (self.folder / config.FILE).exists(),
        }

    def _certificate(self) -> str | None:
        """Whether its test score may be ranked, in words; None before there is one."""
        record = self.record
        if record.test is None:
            return None
        if record.uncertified is not None:
            return f"not certified: {record.uncertified}"
        return f"certified, {'every token' if record.complete else 'a sample'} scored again"

    def _status(self) -> tuple[str, bool | None]:
        """What the summary says, unless the run died before it could say so; whether it lives."""
        status = self.record.status
        if status != "running":
            return status, False
        alive = process.is_alive(self.folder)
        if alive is None and time() - _changed(self.folder / metrics.FILE) > SILENT_SECONDS:
            return "silent", None  # on another machine, perhaps: who knows
        return ("lost" if alive is False else "running"), alive

    def details(self) -> dict[str, Any]:
        """What its own page shows beside the card and the curves."""
        record = self.record
        return {
            "config": _config(self.folder / config.FILE),
            "flat_config": record.config,
            "samples": _samples(self.folder / samples.FILE),
            "log": read_tail(self.folder / "train.log", LOG_BYTES).decode(errors="replace"),
            "versions": record.versions,
            "git": record.git,
            "machine": record.machine,
            "corpus": record.corpus,
        }


class LiveRuns:
    """The runs at any depth below some folders. Thread-safe."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self.folders = [folder.absolute() for folder in folders]
        self._runs: dict[str, LiveRun] = {}
        self._scanned: float | None = None
        self._lock = threading.Lock()

    def add(self, folder: Path) -> LiveRun:
        """Also follow this run."""
        with self._lock:
            if folder not in self.folders:
                self.folders.append(folder)
            run = LiveRun(folder.resolve())
            return self._runs.setdefault(run.id, run)

    def all(self) -> list[LiveRun]:
        """Every run; looks for new and removed folders every few seconds."""
        with self._lock:
            if self._scanned is None or monotonic() - self._scanned > RESCAN_SECONDS:
                found = (run for folder in self.folders for run in run_folders(folder))
                fresh = [LiveRun(folder.resolve()) for folder in found]
                self._runs = {run.id: self._runs.get(run.id, run) for run in fresh}
                self._scanned = monotonic()
            return list(self._runs.values())


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
        with path.open("rb") as file:
            text = file.read(CONFIG_BYTES).decode(errors="replace")
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
    except ValueError:
        return str(folder)
