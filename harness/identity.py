"""What decides a run's numbers, and whether two runs are of the same."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness import config
from harness.config import Node, Settings
from harness.errors import UsageError

# What may change when a run is resumed; all else decides the numbers that are there already.
RESUMABLE = {
    *(f"train.{name}" for name in config.CURRENCIES),
    "train.patience",
    "train.on_non_finite",
    *(f"eval.{name}" for name in ("every", "batch_size", "sample_tokens", "prompt")),
    "checkpoint",
    "logger",
    "observe",
    "assets",
    "cache",
    "trust",
    "device",
    "data.path",  # the text's digest is compared instead: it may lie elsewhere by now
}
# Where a run is kept and how it is watched, rather than what it is.
AROUND = ("resume", "run_dir", "assets", "cache", "trust", "logger")


def decisive(settings: Settings) -> Node:
    """What decides the numbers, as plain values: each checkpoint keeps it beside the weights."""
    return {
        name: value
        for name, value in asdict(settings).items()
        if name not in RESUMABLE | {"resume", "run_dir"}
    }


def differences(before: Any, after: Any, key: str = "") -> list[str]:
    """`key: before → after` for all that differs between two runs' plain settings and decides their
    numbers."""
    # names.data is that of a stand-in where the corpus could not be had; `data` itself is compared.
    if key in RESUMABLE | {"resume", "run_dir", "names.data"}:
        return []
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            line
            for name in sorted({*before, *after}, key=str)
            for line in differences(
                before.get(name), after.get(name), f"{key}.{name}" if key else str(name)
            )
        ]
    return [] if before == after else [f"{key}: {before} → {after}"]


def require_same(
    trained: Node, settings: Settings, where: Path, groups: Iterable[str] | None = None
) -> None:
    """Raises UsageError, naming each field, if settings are not those that weights were trained
    with (`decisive`).

    where: the file that holds the settings. groups: those that matter; None for all.
    """
    after = decisive(settings)
    names = {*trained, *after} if groups is None else groups
    differing = [
        line
        for name in sorted(names, key=str)
        for line in differences(trained.get(name), after.get(name), name)
    ]
    if differing:
        raise UsageError(
            f"{where} is not what the weights were trained with: {'; '.join(differing)}"
        )


def digest(settings: Settings) -> str:
    """SHA-256 of all that tells one job of a sweep from another. precision=auto is what it means on
    this machine."""
    plain = asdict(settings)
    del plain["names"]["data"]
    for name in AROUND:
        del plain[name]
    if settings.precision == "auto":
        from harness.device import Compute

        with suppress(UsageError):  # no such device: the job itself will say so
            plain["precision"] = Compute.choose(settings.device, "auto").precision
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def digest_of_run(folder: Path) -> str | None:
    """The digest of a run's configuration; None if it has none that can be read."""
    try:
        return _digest_of_file(folder / "config.yaml", (folder / "config.yaml").stat().st_mtime_ns)
    except (OSError, UsageError):
        return None


@functools.cache
def _digest_of_file(path: Path, changed: int) -> str:
    return digest(config.load(path))
