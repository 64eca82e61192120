"""What `harness.doctor` found of this machine, kept in the user's state folder: for each model and
precision whether it computes what it should."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from harness.common import contained
from harness.common.errors import RunFailure, UsageError
from harness.common.files import write_atomically
from harness.common.paths import user_state
from harness.common.rows import strict_json
from harness.compute.device import Compute
from harness.runs.damage import DamageError, parse_json
from harness.runs.folder import versions

NAME = "language-model-zoo/doctor.json"
RIGHT = "within rounding of float64"


def machine_key(compute: Compute) -> str:
    """Device and torch: what was found of others says nothing of these."""
    return f"{compute.device.type}, {compute.describe()['name']}, torch {versions()['torch']}"


def trial_key(model: str, precision: str, compiled: bool) -> str:
    return f"{model} in {precision}{', compiled' * compiled}"


def enter(compute: Compute, date: str, found: dict[str, str]) -> str | None:
    """Add what was found of this machine, by `trial_key`: RIGHT, or what is wrong. Returns where it
    is kept; None if there is no place."""
    with suppress(OSError, RunFailure, UsageError):
        path = user_state() / NAME
        known = _read()
        kept = known.setdefault(machine_key(compute), {})
        kept |= {key: {"date": date, "found": words} for key, words in found.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, f"{strict_json(known, indent=2)}\n".encode())
        return str(path)
    return None


def found_of(model: str, compute: Compute, compiled: bool) -> tuple[str, bool] | None:
    """What was found of a model on this machine, in words, and whether it is right; None if that
    was never tried with these versions."""
    machine, trial = machine_key(compute), trial_key(model, compute.precision, compiled)
    entry = _read().get(machine, {}).get(trial)
    if entry is None:
        return None
    found, day = entry.get("found"), entry.get("date")
    return f"{trial}: {found}, by harness.doctor on {day} ({machine})", found == RIGHT


def _read() -> dict[str, dict[str, dict[str, Any]]]:
    """By machine and trial. Without what is damaged."""
    known: dict[str, Any] = {}
    with suppress(OSError, DamageError, UsageError):
        known = parse_json(contained.read_text(user_state() / NAME), NAME)
    return {
        machine: {trial: entry for trial, entry in trials.items() if isinstance(entry, dict)}
        for machine, trials in known.items()
        if isinstance(trials, dict)
    }
