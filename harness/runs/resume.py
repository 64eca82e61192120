"""Resuming a run: which settings may differ from the saved ones."""

from __future__ import annotations

import copy
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from harness.common.errors import UsageError
from harness.common.files import remove_folder, write_atomically, writing
from harness.common.values import show
from harness.compute.processor import VARIABLES
from harness.config.identity import differences, require_same_settings
from harness.config.saved import load_settings
from harness.config.settings import Role, Settings, keys_with_role, read_settings
from harness.data.dataset import Dataset
from harness.runs import checkpoint
from harness.runs.checkpoint import StepCheckpoint
from harness.runs.damage import DamageError
from harness.runs.folder import RunFolder
from harness.runs.load import load_tokenizer
from harness.runs.summary import FILE as SUMMARY
from harness.runs.summary import Summary, read_summary
from zoo_tokenizers import Tokenizer

_ABSENT = object()
# Options that an optimizer got when there were runs with it already.
ADDED = {"harness.training.muon.Muon": ("orthogonalize", "per_map")}
# What a field of summary.json is called in words, where its name alone does not say.
CHANGED = {"commit": "code", "dirty": "uncommitted changes", "name": "processor"}


def run_to_resume(settings: Settings) -> RunFolder | None:
    """The folder of the run to go on with; None if the run is to begin.

    Raises UsageError if resume=true finds no run, and if what resume=auto finds is neither a run
    nor what is left of one that was killed before it had a configuration.
    """
    if not settings.resume:
        return None
    if not settings.run_dir:
        raise UsageError(
            f"resume={show(settings.resume)} needs run_dir=…: the folder of the run to go on with"
        )
    folder = RunFolder(Path(settings.run_dir), settings.checkpoint_dir)
    try:
        is_run = settings.resume is True or folder.config.is_file()
    except OSError as error:
        raise UsageError(f"{folder.path} can't be read: {error.strerror}") from error
    if is_run:
        return RunFolder.existing(folder.path, settings.checkpoint_dir)
    if not folder.is_unused():
        raise UsageError(f"{folder.path} holds other files and no run: choose another run_dir")
    return None


def resumed_settings(asked: Settings, overrides: list[str]) -> Settings:
    """The settings of the run to go on with, changed by the command line: by its overrides, or by
    all of `asked` if one of them is a recipe. `asked` itself if there is none to go on with. The
    loggers and the paths of the cache and of downloads are always the user's: the folder may be a
    stranger's.

    Raises UsageError naming every field that may not differ from the run's.
    """
    folder = run_to_resume(asked)
    if folder is None:
        return asked
    saved = load_settings(folder.config)
    folder.require_checkpoint_dir(saved.checkpoint_dir)
    begun = checkpoint.list_steps(folder.checkpoints, StepCheckpoint)
    if saved.fork_from is not None and asked.fork_from is None and not begun:
        raise UsageError(
            f"{folder.path} has not begun, and from where it was to begin is its folder's word: if "
            f"you trust it, give fork_from={show(saved.fork_from)}"
        )
    if left_out := sorted(saved.logger.keys() - asked.logger.keys()):
        print(
            f"logger {', '.join(left_out)}: not used, only the run's folder names it; to go on "
            f"with it: logger=[{','.join(left_out)}]",
            file=sys.stderr,
        )
    if saved.eval.also and not asked.eval.also:
        print(
            f"eval.also {', '.join(saved.eval.also)}: not used, only the run's folder names it; to "
            "go on with it: eval.also={NAME: FILE}",
            file=sys.stderr,
        )
    if asked.precision == "auto":  # which was resolved when the run began
        asked = asked.replace(precision=saved.precision)
    if asked.matmul == "auto":
        asked = asked.replace(matmul=saved.matmul)
    asked = asked.replace(optimizer=optimizer_of(asked, saved, overrides))
    before = with_users_own(saved, asked)
    after = changed_by(before, asked, overrides)
    differing = differences(before, after)
    if differing:
        raise UsageError(
            f"{folder.path} can't be resumed with other settings: {'; '.join(differing)}"
        )
    settings = read_settings(after)
    return settings.replace(resume=asked.resume, run_dir=asked.run_dir)


def optimizer_of(asked: Settings, saved: Settings, overrides: list[str]) -> dict[str, Any]:
    """The optimizer asked for, but for what the run decided when it began: what is auto, and
    options newer than it that are not typed. It goes on with their defaults in the class."""
    own, its = dict(asked.optimizer), saved.optimizer
    if own["_target_"] != its["_target_"]:
        return own
    typed = {override.lstrip("+~").partition("=")[0] for override in overrides}
    for key in ADDED.get(its["_target_"], ()):
        if own.get(key) == "auto" and key in its:
            own[key] = its[key]
        elif key not in its and (own.get(key) == "auto" or f"optimizer.{key}" not in typed):
            own.pop(key, None)
    return own


def with_users_own(saved: Settings, asked: Settings) -> dict[str, Any]:
    """A run's settings as plain values, but for those that are always the user's."""
    plain, typed = saved.plain(), asked.plain()
    for key in keys_with_role(Role.FROM_USER):
        _put(plain, key, _get(typed, key))
    return plain


def changed_by(before: dict[str, Any], asked: Settings, overrides: list[str]) -> dict[str, Any]:
    """Settings as plain values, changed by the command line: by its overrides, or by all of `asked`
    if one of them is a recipe."""
    typed = asked.plain()
    if any(override.startswith("experiment=") for override in overrides):
        return typed
    after = copy.deepcopy(before)
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        _put(after, key, _get(typed, key))
    return after


def has_begun(folder: RunFolder) -> bool:
    """Whether a training has written its summary there, which it does before its first step."""
    return (folder.path / SUMMARY).exists()


def is_finished(folder: RunFolder, settings: Settings) -> bool:
    """Whether the run has spent its budget, lacks no part of its results that a resume would make,
    and the settings ask for no more."""
    try:
        summary = read_summary(folder.path)
    except (OSError, DamageError):
        return False
    if summary.status != "finished" or summary.to_be_made():
        return False
    if summary.parameters is not None and summary.parameters.state is not None:
        return True  # it counts: one pass, whatever the budget
    currency, total = settings.train.budget
    spent = getattr(summary.train, currency, None)
    # Early stopping ends below the budget: a larger one, or other patience, then asks for more.
    before = load_settings(folder.config).train
    same = (before.budget, before.patience) == (settings.train.budget, settings.train.patience)
    stopped_early = same and before.patience is not None
    return stopped_early or (spent is not None and spent >= total)


def with_budget(saved: StepCheckpoint, folder: RunFolder) -> StepCheckpoint:
    """The checkpoint with the budget that its steps had: one of an earlier version does not say it,
    the run's configuration does."""
    if "budget" in saved.progress:
        return saved
    budget = dict([load_settings(folder.config).train.budget])
    return replace(saved, progress=saved.progress | {"budget": budget})


def require_same_origin(
    saved: StepCheckpoint | None, dataset: Dataset, settings: Settings, folder: RunFolder
) -> None:
    """Raises UsageError if a checkpoint is of another text, tokenizer or configuration."""
    if saved is None:
        print("the run has no checkpoint yet: it starts again", file=sys.stderr)
        return
    require_same_text(saved, dataset, f"{settings.run_dir} can't be resumed")
    require_same_settings(saved.settings, settings, folder.config)


def require_same_text(saved: StepCheckpoint, dataset: Dataset, what: str) -> None:
    """Raises UsageError if a checkpoint is of another text or tokenizer. what: is not possible
    then."""
    for name, before, now in (
        ("corpus", saved.corpus, dataset.digest),
        ("tokenizer", saved.tokenizer, dataset.tokenizer.digest),
    ):
        if before != now:
            raise UsageError(f"{what}: its {name} has changed (SHA-256 {before} → {now})")
    stream = saved.progress.get("stream")
    if dataset.shards is not None and isinstance(stream, dict):
        were, are = stream.get("shards"), dataset.shards.sha256
        if were != are:
            raise UsageError(
                f"{what}: the names or sizes of its shards have changed (SHA-256 {were!s:.64} → "
                f"{are})"
            )


def repair_tokenizer(settings: Settings, folder: RunFolder, tokenizer: Tokenizer) -> str | None:
    """Write the tokenizer again if the folder's is damaged; returns a line that says so.

    tokenizer: the one of the run's checkpoint.
    """
    try:
        load_tokenizer(settings, folder, tokenizer.digest)
    except UsageError as error:
        remove_folder(folder.tokenizer)
        with writing(folder.tokenizer):
            tokenizer.save(folder.tokenizer, partial(write_atomically, inside=2))
        return f"{error}; it was written again"
    return None


def changes_since(folder: RunFolder, now: Summary, how: str = "resumed") -> str | None:
    """A line that says why a run that is resumed (or forked, by `how`) can't equal an uninterrupted
    one bit for bit; None if it can. folder: what it goes on from. now: what goes on with it."""
    try:
        before = read_summary(folder.path)
    except (OSError, DamageError) as error:
        return f"whether code, libraries and machine are those of before is not known ({error})"
    # Where the machine does not name them.
    assumed: dict[str, Any] = {"processes": 1, **dict.fromkeys(VARIABLES, "unset")}
    changed = [
        f"{what} {_short(old[name])} → {_short(new[name])}"
        for old, new in (
            (before.git or {}, now.git or {}),
            (before.versions or {}, now.versions or {}),
            (assumed | (before.machine or {}), assumed | (now.machine or {})),
        )
        for name in new
        if name in old and old[name] != new[name]
        for what in [CHANGED.get(name, name)]
    ]
    if not changed:
        return None
    return (
        f"{how} with other {', '.join(changed)}: it need not equal an uninterrupted run bit for bit"
    )


def _short(value: Any) -> str:
    return show(value)[:40]


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
