"""What decides a run's numbers, and whether two runs are of the same."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.common.errors import UsageError
from harness.config.build import Node
from harness.config.saved import with_moved_classes
from harness.config.settings import Role, Settings, keys_with

RESUMABLE = keys_with(Role.RESUMABLE)


def decisive(settings: Settings) -> Node:
    """What decides the numbers, as plain values: each checkpoint keeps it beside the weights."""
    return {name: value for name, value in settings.plain().items() if name not in RESUMABLE}


def differences(before: Any, after: Any, key: str = "") -> list[str]:
    """`key: before → after` for all that differs between two runs' plain settings and decides their
    numbers."""
    if key in RESUMABLE:
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
    trained, after = with_moved_classes(trained), decisive(settings)
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
