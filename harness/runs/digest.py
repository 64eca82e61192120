"""The digest of a run's configuration: what tells one job of a sweep from another."""

from __future__ import annotations

import functools
import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.common.errors import UsageError
from harness.compute.device import Compute
from harness.compute.matmul import current_matmul, use_matmul
from harness.compute.race import faster_precision
from harness.config.saved import load_settings
from harness.config.settings import Role, Settings, keys_with_role
from harness.runs.config import FILE
from harness.runs.damage import DamageError
from harness.runs.summary import read_summary


def digest(settings: Settings, but_for: Role = Role.SAME_JOB) -> str:
    """SHA-256 of the settings without those of a role: of those that tell one job of a sweep from
    another. What is `auto` and decided by this machine is resolved."""
    plain = settings.plain()
    for key in keys_with_role(but_for):
        *groups, name = key.split(".")
        functools.reduce(dict.__getitem__, groups, plain).pop(name, None)
    if settings.fork_from is not None and but_for == Role.SAME_CONFIGURATION:
        plain["fork_from"] = _origin(settings.fork_from)
    with suppress(UsageError):  # no such device: the job itself will say so
        plain |= _resolved(settings)
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _resolved(settings: Settings) -> dict[str, Any]:
    """What is `auto` and this machine decides, as the job's run will record it."""
    asked, before = settings.optimizer.get("orthogonalize"), current_matmul()
    if "auto" not in (settings.precision, asked):
        return {}
    matmul = "blas" if settings.compile else settings.matmul
    try:
        compute = Compute.choose(settings.device, settings.precision, matmul=matmul)
        found: dict[str, Any] = {"precision": compute.precision}
        if asked == "auto":
            chosen = {"orthogonalize": faster_precision(compute.device.type)}
            found["optimizer"] = settings.optimizer | chosen
        return found
    finally:
        use_matmul(before)


def _origin(fork_from: str) -> str:
    """The configuration and step of a fork's parent: those of other seeds lie elsewhere."""
    path, _, step = fork_from.rpartition("@")
    with suppress(UsageError, RecursionError):  # no such run: the job itself will say so
        return f"{digest(load_settings(Path(path, FILE)), Role.SAME_CONFIGURATION)}@{step}"
    return fork_from


def digest_of_run(folder: Path) -> str | None:
    """The digest of a run's configuration; None if it can't be read. That of an extended run, which
    its configuration does not tell from a fresh one, is no digest of a configuration."""
    try:
        path = folder / FILE
        own = _digest_of_file(path, path.stat().st_mtime_ns)
    except (OSError, UsageError):
        return None
    with suppress(OSError, DamageError):
        if extended := read_summary(folder).extended:
            return f"{own} extended at {extended}"
    return own


@functools.cache
def _digest_of_file(path: Path, changed: int) -> str:
    return digest(load_settings(path))
