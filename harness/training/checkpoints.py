"""Saving a training's checkpoints and resuming from them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from harness.common.errors import RunFailure
from harness.config.identity import without_resumable
from harness.config.settings import CheckpointSettings
from harness.runs import checkpoint
from harness.runs.checkpoint import BestCheckpoint, StepCheckpoint
from harness.runs.restore import load_weights
from harness.training.context import RunContext
from harness.training.counting import Counter
from harness.training.progress import Progress
from harness.training.trainer import Trainer

ADDED_LATER = (
    *("kept_best", "evaluation_seconds", "beside", "steps_before_fork", "flops_before_fork"),
    *("stream", "budget", "extended"),
)


class Checkpoints:
    """The checkpoints of a training, written by rank 0: the newest, those to keep, and with each
    the best weights as of its step."""

    def __init__(self, context: RunContext, trainer: Trainer | Counter) -> None:
        self._folder, self._trainer = context.folder, trainer
        self._plan = context.settings.checkpoint
        self._write = context.processes.is_main
        self._origin: dict[str, Any] = {
            "tokenizer": context.dataset.tokenizer.digest,
            "corpus": context.dataset.digest,
            "settings": without_resumable(context.settings),
        }
        self._saved_step: int | None = None

    def resume(self, saved: StepCheckpoint | None) -> Progress:
        """Load a checkpoint into the trainer, if there is one, and remove later ones: their steps
        are run again. Raises RunFailure if it does not fit, and if there is none to load but some
        that would be lost."""
        progress = Progress()
        if saved is None:  # a run that ended before its first one may have a best one
            checkpoint.require_none(self._folder.checkpoints, StepCheckpoint)
        if saved is not None:
            with checkpoint.restoring(self._folder.checkpoints):
                self._trainer.load_state_dict(vars(saved))
                # Which earlier versions lack.
                before = {name: getattr(progress, name) for name in ADDED_LATER}
                progress = checkpoint.from_checkpoint(Progress, before | saved.progress)
                if progress.step != saved.step:
                    raise ValueError(f"progress.step is {progress.step}, not {saved.step}")
            self._saved_step = progress.step
        self._keep_best(progress)
        return progress

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint is to be saved at this step."""
        due_anyway = step > 0 and step % self._plan.every == 0
        return due_anyway or (self._plan.keep != "all" and is_kept(step, self._plan))

    def save(self, progress: Progress) -> None:
        """Save all that it takes to resume. Raises NonFiniteError and saves nothing if a weight is
        NaN or infinite, and FolderLost."""
        if self._saved_step == progress.step or not self._write:
            return
        self._folder.require_own()
        self._trainer.require_finite_weights(progress.step)
        if progress.best is not None:
            best = progress.best["step"]
            progress.saved_best = [*progress.saved_best[-1:], best]
            if is_kept(progress.step, self._plan) and best not in progress.kept_best:
                progress.kept_best = [*progress.kept_best, best]
        state = StepCheckpoint(
            step=progress.step,
            progress=asdict(progress),
            **self._trainer.state_dict(),
            **self._origin,
        )
        checkpoint.save(self._folder.checkpoints, state, keep=self._kept())
        self._keep_best(progress)
        self._saved_step = progress.step

    def _kept(self) -> list[int]:
        """Of the checkpoints that are there the last one, and those to keep. One that is later than
        the last is of steps that a resumed run has done again."""
        last = -1 if self._saved_step is None else self._saved_step
        found = checkpoint.list_steps(self._folder.checkpoints, StepCheckpoint)
        return [s for s in found if s == last or (s < last and is_kept(s, self._plan))]

    def save_best(self, progress: Progress) -> None:
        """Save the evaluated weights alone. Raises FolderLost."""
        if self._write:
            self._folder.require_own()
            weights = self._trainer.evaluated.state_dict()
            state = BestCheckpoint(step=progress.step, model=weights, **self._origin)
            keep = [*progress.saved_best, *progress.kept_best]
            checkpoint.save(self._folder.checkpoints, state, keep=keep)

    def _keep_best(self, progress: Progress) -> None:
        keep = [*progress.saved_best, *progress.kept_best]
        checkpoint.keep_only(self._folder.checkpoints, BestCheckpoint, keep)

    def load_best(self, progress: Progress) -> None:
        """Load the best weights into the evaluated model. Raises RunFailure if they are gone."""
        if progress.best is None:
            return
        best = checkpoint.load(self._folder.checkpoints, BestCheckpoint)
        if best is None or best.step != progress.best["step"]:
            raise RunFailure(f"the best checkpoint, of step {progress.best['step']}, is gone")
        with checkpoint.restoring(self._folder.checkpoints):
            load_weights(self._trainer.evaluated, best.model, "model")


def is_kept(step: int, plan: CheckpointSettings) -> bool:
    """Whether the checkpoint of a step stays when newer ones are saved."""
    if isinstance(plan.keep, list):
        return step in plan.keep
    return plan.keep == "all" or (plan.keep == "log" and step.bit_count() == 1)
