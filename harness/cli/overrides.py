"""What is typed, before Hydra composes it: checked, and put as Hydra wants it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from harness.cli import explain
from harness.common.errors import UsageError
from harness.common.paths import expand
from harness.config import own_class, secrets
from harness.config.spelling import meaning
from harness.config.together import apart

# Groups of which each file has settings of its own.
NODES = ("data", "tokenizer", "model", "optimizer", "schedule")


def prepared(
    typed: Iterable[str], choices: Callable[[str], list[str]], *, sweeps: bool
) -> list[str]:
    """The overrides for Hydra. choices: gives the names of the files in a group. sweeps: whether
    the command takes -m.

    Raises UsageError for a secret, and for a file or a folder of files that does not exist.
    """
    overrides = [_without_local(each) for each in apart(typed)]
    overrides = _of_its_run(own_class.with_its_settings(overrides))
    for override in overrides:
        secrets.reject_override(override)
        _require_searchpath(override)
    for override in overrides:
        if message := explain.wrong_choice(override, choices, sweeps=sweeps):
            raise UsageError(message)
    return overrides


def _without_local(override: str) -> str:
    """The local logger is always on: `logger=[local,wandb]` is `logger=[wandb]`."""
    key, _, value = override.partition("=")
    if key != "logger" or not re.fullmatch(r"[\w, \[\]]*\]|local", value):
        return override
    lists = []
    for chosen in explain.alternatives(value):
        names = [word.strip() for word in chosen.strip("[]").split(",")]
        lists.append(f"[{','.join(name for name in names if name not in ('local', ''))}]")
    return f"logger={','.join(lists)}"


def _of_its_run(overrides: list[str]) -> list[str]:
    """Where a run is resumed or forked, its configuration says which settings its text, tokenizer,
    model and so on have: what is typed of them changes that, not the files chosen here."""
    typed = dict(override.split("=", 1) for override in overrides if "=" in override)
    if "experiment" in typed:
        return overrides
    run = meaning(f"run_dir={typed['run_dir']}") if "run_dir" in typed else None
    is_resumed = meaning(f"resume={typed.get('resume')}") in (True, "auto")
    is_there = isinstance(run, str) and os.path.isfile(expand(run) / "config.yaml")
    if not ("fork_from" in typed or (is_resumed and is_there)):
        return overrides
    free = tuple(f"{group}." for group in NODES if group not in typed)
    return [f"++{each}" if each.startswith(free) else each for each in overrides]


def _require_searchpath(override: str) -> None:
    """Raises UsageError for a folder of configuration files that is not there."""
    key, _, _ = override.partition("=")
    if key != "hydra.searchpath":
        return
    places = meaning(override)
    if not isinstance(places, list) or not all(isinstance(place, str) for place in places):
        raise UsageError("hydra.searchpath should be a list of folders: hydra.searchpath=[DIR]")
    for place in places:
        folder = place.removeprefix("file://")
        if "://" not in folder and not Path(folder).is_dir():
            raise UsageError(f"hydra.searchpath: {folder} is not a folder")
