"""What decides a run's numbers, and whether two runs are of the same."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.common.errors import UsageError
from harness.config import settings as config
from harness.config.build import Node
from harness.config.settings import Settings

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
