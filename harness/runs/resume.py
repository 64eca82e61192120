"""Resuming a run: which settings may differ from the saved ones."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

from harness.common.errors import UsageError
from harness.config.identity import differences, require_same_settings
from harness.config.saved import load_settings
from harness.config.settings import Role, Settings, keys_with_role, read_settings
from harness.data.dataset import Dataset
from harness.runs.checkpoint import Checkpoint
from harness.runs.damage import DamageError
from harness.runs.folder import RunFolder
from harness.runs.summary import read_summary

_ABSENT = object()


def resumed_settings(asked: Settings, overrides: list[str]) -> Settings:
    """The settings saved in `asked.run_dir`, changed by the command line: by its overrides, or by
    all of `asked` if one of them is a recipe. The loggers and the paths of the cache and of
    downloads are always the user's: the folder may be a stranger's.

    Raises UsageError naming every field that may not differ from the run's.
    """
    if not asked.run_dir:
        raise UsageError("resume=true needs run_dir=…: the folder of the run to go on with")
    folder = RunFolder.existing(Path(asked.run_dir))
    saved = load_settings(folder.config)
    if left_out := sorted(saved.logger.keys() - asked.logger.keys()):
        print(
            f"logger {', '.join(left_out)}: not used, only the run's folder names it; to go on "
            f"with it: logger=[{','.join(left_out)}]",
            file=sys.stderr,
        )
    saved = saved.replace(**{key: getattr(asked, key) for key in keys_with_role(Role.FROM_USER)})
    if asked.precision == "auto":  # which was resolved when the run began
        asked = asked.replace(precision=saved.precision)
    before, after = saved.plain(), asked.plain()
    if not any(override.startswith("experiment=") for override in overrides):
        typed, after = after, copy.deepcopy(before)
        for override in overrides:
            key = override.lstrip("+~").partition("=")[0]
            _put(after, key, _get(typed, key))
    differing = differences(before, after)
    if differing:
        raise UsageError(
            f"{folder.path} can't be resumed with other settings: {'; '.join(differing)}"
        )
    settings = read_settings(after)
    return settings.replace(resume=True, run_dir=asked.run_dir)


def is_finished(folder: RunFolder, settings: Settings) -> bool:
    """Whether the run has spent its budget, and the settings ask for no more."""
    try:
        summary = read_summary(folder.path)
    except (OSError, DamageError):
        return False
    if summary.status != "finished":
        return False
    currency, total = settings.train.budget
    spent = getattr(summary.train, currency, None)
    # Early stopping ends below the budget: a larger one, or other patience, then asks for more.
    before = load_settings(folder.config).train
    same = (before.budget, before.patience) == (settings.train.budget, settings.train.patience)
    return same or (spent is not None and spent >= total)


def require_same_origin(
    saved: Checkpoint | None, dataset: Dataset, settings: Settings, folder: RunFolder
) -> None:
    """Raises UsageError if a checkpoint is of another text, tokenizer or configuration."""
    if saved is None:
        print("the run has no checkpoint yet: it starts again", file=sys.stderr)
        return
    for name, before, now in (
        ("corpus", saved.corpus, dataset.digest),
        ("tokenizer", saved.tokenizer, dataset.tokenizer.digest),
    ):
        if before != now:
            raise UsageError(
                f"{settings.run_dir} can't be resumed: its {name} has changed "
                f"(SHA-256 {before} → {now})"
            )
    require_same_settings(saved.settings, settings, folder.config)


def _get(node: Any, key: str) -> Any:
    for name in key.split("."):
        if not isinstance(node, dict) or name not in node:
            return _ABSENT
        node = node[name]
    return node


def _put(node: dict[str, Any], key: str, value: Any) -> None:
    """Set, or where the value is absent remove, what lies at a dotted key."""
    *path, last = key.split(".")
    for name in path:
        inner = node.get(name)
        if not isinstance(inner, dict):
            if value is _ABSENT:
                return
            inner = node[name] = {}
        node = inner
    if value is _ABSENT:
        node.pop(last, None)
    else:
        node[last] = value
