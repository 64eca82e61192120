"""A run that begins at a checkpoint of another one, its parent: `fork_from=RUN@STEP`.

It is what the parent's folder was at that step, in a folder of its own, and goes on with other
settings. So it has the parent's rows, samples and costs up to that step, too.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from harness.common import contained
from harness.common.errors import RunFailure, UsageError
from harness.common.files import atomic_write
from harness.common.values import fits
from harness.config.identity import differences, without_resumable
from harness.config.saved import load_settings
from harness.config.settings import CURRENCIES, FORK, Currency, Role, Settings, read_settings
from harness.runs import checkpoint, metrics, samples
from harness.runs.checkpoint import BestCheckpoint, StepCheckpoint
from harness.runs.damage import DamageError
from harness.runs.digest import digest
from harness.runs.folder import RunFolder
from harness.runs.load import why_none
from harness.runs.resume import changed_by, optimizer_of, with_users_own
from harness.runs.summary import Ancestor, read_summary

# What a fork shares with its parent: what its state is of, and what it was trained and chosen on.
# The seed, because forks of one run with several seeds would pass for independent runs.
SHARED = (
    *("data", "tokenizer", "model", "init", "zero_residual", "ngrams", "ngram_rows", "seed"),
    "precision",
)
SHARED_PARTS = (("train", "ema"), ("optimizer", "_target_"))


@dataclass(frozen=True)
class Parent:
    """The run that another one begins at, and the step."""

    folder: RunFolder
    settings: Settings
    step: int

    @cached_property
    def state(self) -> StepCheckpoint:
        """Raises UsageError if there is no such checkpoint, RunFailure if it is damaged."""
        folder = self.folder.checkpoints
        if (found := checkpoint.load(folder, StepCheckpoint, self.step)) is None:
            raise UsageError(f"fork_from: {why_none(self.folder, self.step)}")
        return found

    def ancestors(self) -> list[Ancestor]:
        """The parent's own, oldest first, and the parent."""
        before: list[Ancestor] = []
        with suppress(OSError, DamageError):
            before = read_summary(self.folder.path).lineage or []
        own = Ancestor(
            run=str(self.folder.path),
            step=self.step,
            checkpoint=checkpoint.digest_of(self.folder.checkpoints, self.state),
            configuration=digest(self._settings_then(), but_for=Role.SAME_CONFIGURATION),
        )
        return [*before, own]

    def _settings_then(self) -> Settings:
        """With the budget as of that step: the parent may have been extended since."""
        budget = self.state.progress.get("budget")
        if not isinstance(budget, dict) or not fits(budget, dict[Currency, float]):
            return self.settings  # of an earlier version
        train = self.settings.train.replace(**dict.fromkeys(CURRENCIES) | budget)
        return self.settings.replace(train=train)

    def copy(self, folder: RunFolder, settings: Settings, costs: dict[str, int]) -> StepCheckpoint:
        """Put what the parent was at that step into the folder of a fork with these settings; the
        checkpoint last, since one makes the folder a run to go on with. Returns the checkpoint.
        costs: of its progress, which the fork counts from."""
        state, own = self.state, without_resumable(settings)
        with checkpoint.restoring(self.folder.checkpoints):
            best = state.progress["best"] and int(state.progress["best"]["step"])
        if best is not None:
            weights = checkpoint.load(self.folder.checkpoints, BestCheckpoint, best)
            if weights is None:
                raise RunFailure(
                    f"{self.folder.path} has lost its best checkpoint of step {best}, "
                    f"which the one of step {self.step} needs"
                )
            checkpoint.save(folder.checkpoints, replace(weights, settings=own), keep=[])
        for name, keep_before in (
            (metrics.FILE, metrics.keep_before),
            (samples.FILE, samples.keep_before),
        ):
            with suppress(FileNotFoundError), contained.open_binary(self.folder.path / name) as old:
                with atomic_write(folder.path / name) as new:
                    shutil.copyfileobj(old, new)
                keep_before(folder.path / name, self.step)
        progress = state.progress | {"saved_best": [] if best is None else [best]}
        progress["budget"] = dict([settings.train.budget])  # a fork may have another
        state = replace(state, settings=own, progress=progress | {"kept_best": []} | costs)
        checkpoint.save(folder.checkpoints, state, keep=[])
        return state


def parent_of(settings: Settings) -> Parent | None:
    """None if the run begins at step 0. Raises UsageError if there is no such run, or it is one
    that these settings can't be a fork of."""
    if settings.fork_from is None:
        return None
    parts = FORK.fullmatch(settings.fork_from)
    assert parts is not None, "the settings were checked"
    path = Path(parts["run"])
    theirs = load_settings(RunFolder.existing(path).config).replace(trust=settings.trust)
    elsewhere = settings.checkpoint_dir if theirs.checkpoint_dir else None
    folder = RunFolder(path, elsewhere)
    folder.require_checkpoint_dir(theirs.checkpoint_dir)
    parent = Parent(folder, theirs, int(parts["step"]))
    _require_alike(parent, settings)
    return parent


def _require_alike(parent: Parent, settings: Settings) -> None:
    before, after = parent.settings.plain(), settings.plain()
    differing = [
        line for key in SHARED for line in differences(before.get(key), after.get(key), key)
    ]
    parts: tuple[tuple[str, str], ...] = SHARED_PARTS
    # An epoch, or a stream, is cut into rows of this length.
    if settings.data.get("order") == "shuffled" or "lanes" in settings.data:
        parts += (("train", "seq_len"), ("train", "positions"))
    for group, key in parts:
        differing += differences(before[group].get(key), after[group].get(key), f"{group}.{key}")
    # Muon keeps something for each matrix that it takes. A run from before the option took no maps.
    was, now = (bool(each["optimizer"].get("per_map")) for each in (before, after))
    differing += differences(was, now, "optimizer.per_map")
    if differing:
        raise UsageError(
            f"{settings.fork_from} can't be forked with another {'; '.join(differing)}"
        )
    currency, total = settings.train.budget
    counter = "step" if currency == "steps" else currency
    spent = parent.state.progress.get(counter)  # none of the FLOPs is known here
    if isinstance(spent, int | float) and spent > total:
        raise UsageError(
            f"{settings.fork_from} has spent {spent:,} {currency} already: train.{currency}="
            f"{total:,} is less"
        )


def forked_settings(asked: Settings, overrides: list[str]) -> Settings:
    """The settings of a fork: its parent's, changed by the command line as those of a run that is
    resumed. `asked` itself if it is none, or one to be resumed, which has settings of its own."""
    if asked.fork_from is None:
        return asked
    if asked.resume and asked.run_dir and os.path.isfile(RunFolder(Path(asked.run_dir)).config):
        return asked
    path = Path(asked.fork_from.rpartition("@")[0])
    theirs = load_settings(RunFolder.existing(path).config)
    if asked.precision == "auto":  # which was resolved when the parent began
        asked = asked.replace(precision=theirs.precision)
    if asked.matmul == "auto":
        asked = asked.replace(matmul=theirs.matmul)
    asked = asked.replace(optimizer=optimizer_of(asked, theirs, overrides))
    of_run = {key: getattr(asked, key) for key in ("resume", "run_dir", "fork_from")}
    before = with_users_own(theirs, asked) | of_run
    return read_settings(changed_by(before, asked, overrides))
