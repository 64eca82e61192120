"""Paths of the repository and its configuration, and of the user."""

from __future__ import annotations

import os
from pathlib import Path

from harness.common.errors import UsageError

REPOSITORY = Path(__file__).resolve().parents[2]
CONF = REPOSITORY / "conf"


def expand(path: str | Path) -> Path:
    """The path with `~` replaced by a home folder. Raises UsageError if there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:  # no HOME, and the system does not know the user
        raise UsageError(f"{path}: no home folder is known; set HOME") from error


def user_cache() -> Path:
    """Where a user's programs keep what can be made again (the XDG base directories)."""
    return _of_user("XDG_CACHE_HOME", "~/.cache")


def user_state() -> Path:
    """Where a user's programs keep what can't be made again (the same)."""
    return _of_user("XDG_STATE_HOME", "~/.local/state")


def _of_user(variable: str, default: str) -> Path:
    """A variable that is empty, or no absolute path, counts as unset."""
    named = os.environ.get(variable, "")
    return Path(named) if os.path.isabs(named) else expand(default)
