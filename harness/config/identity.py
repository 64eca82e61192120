"""Compares the settings of runs that should have equal numbers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.common.errors import UsageError
from harness.config.keys import Node
from harness.config.saved import with_moved_classes
from harness.config.settings import Role, Settings, folder_from_anywhere, keys_with_role

RESUMABLE = keys_with_role(Role.RESUMABLE)


def without_resumable(settings: Settings) -> Node:
    """The settings that determine a run's numbers, as plain values. Stored in each checkpoint."""
    return {name: value for name, value in settings.plain().items() if name not in RESUMABLE}


def differences(before: Any, after: Any, key: str = "") -> list[str]:
    """`key: before → after` for each plain setting that differs, except for resumable ones."""
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
    try:
        same = bool(before == after)
    except (RuntimeError, TypeError, ValueError):  # a tensor, say, of a checkpoint that was changed
        same = False
    return [] if same else [f"{key}: {before!s:.80} → {after!s:.80}"]


def _completed(trained: Node) -> Node:
    """With the defaults of the settings that came after the version that trained it."""
    later = Settings.defaults()
    groups = [name for name, value in later.items() if isinstance(value, dict)]
    known = [name for name in groups if isinstance(trained.get(name), dict)]
    return later | trained | {name: later[name] | trained[name] for name in known}


def require_same_settings(
    trained: Node, settings: Settings, where: Path, groups: Iterable[str] | None = None
) -> None:
    """Raises UsageError, naming each difference, if `settings` are not those of the weights.

    trained: from the checkpoint (`without_resumable`). where: the file that holds `settings`.
    groups: which ones to compare; None for all.
    """
    trained, after = _completed(with_moved_classes(trained)), without_resumable(settings)
    if isinstance(tokenizer := trained.get("tokenizer"), dict):  # earlier versions kept it as typed
        trained = trained | {"tokenizer": folder_from_anywhere(tokenizer)}
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
