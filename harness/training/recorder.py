"""What a training writes beside checkpoints: rows, log lines, samples, summary.json."""

from __future__ import annotations

import math

from harness.common.rows import Row
from harness.compute.costs import cache_bytes, parameters
from harness.compute.memory import PeakMemory
from harness.data.batches import row_shape
from harness.runs import samples
from harness.runs.samples import Sample
from harness.runs.summary import ALSO, Best, ParameterCount, Scored, TrainCost
from harness.training.context import RunContext
from harness.training.flops import flops_per_step
from harness.training.guards import Guard
from harness.training.progress import Progress
from harness.training.streamed_rows import streamed
from zoo.language_model import LanguageModel


class Recorder:
    """Keeps a run's records up to date."""

    def __init__(self, context: RunContext, model: LanguageModel, progress: Progress) -> None:
        settings, plan = context.settings, context.settings.train
        self._context, self._model, self._progress = context, model, progress
        self._summary = summary = context.summary
        rows = plan.batch_size * plan.accumulate
        time, targets = row_shape(context.dataset.row_documents, plan.seq_len, plan.trained)
        self._flops_per_step = flops_per_step(settings, context.dataset, model)
        summary.receptive_field = model.receptive_field
        summary.parameters = ParameterCount(**parameters(model))
        summary.flops_per_token = self._flops_per_step / (rows * targets)
        if context.dataset.task is not None and model.fit is None:
            summary.cache_bytes = cache_bytes(model, time)
        self._memory = PeakMemory(context.compute.device)
        # Examples of a task are all new, and nobody knows how many tokens a stream has.
        is_whole = context.dataset.task is None and context.dataset.shards is None
        self._predictions = max(1, len(context.dataset.train.ids) - 1) if is_whole else None
        for logger in context.loggers:
            logger.open(context.folder.path, settings, progress.step)

    def start_row(self) -> Row:
        """The row of the current step: so far, what all steps before it took."""
        progress = self._progress
        own_steps = progress.step - progress.steps_before_fork
        return {
            "step": progress.step,
            "tokens": progress.tokens,
            "bytes": progress.bytes,
            "flops": progress.flops_before_fork + own_steps * self._flops_per_step,
            "seconds": progress.seconds,
            "epochs": progress.tokens / self._predictions if self._predictions else None,
        }

    def log(self, row: Row) -> None:
        """Raises FolderLost."""
        try:
            for logger in self._context.loggers:
                logger.log(row)
        finally:  # that the folder was moved says more than that its file is gone
            self._context.folder.require_own()
        self._context.on_row(row)

    def add_sample(self, sample: Sample) -> None:
        """Raises FolderLost."""
        self._context.folder.require_own()
        samples.append(self._context.folder.samples, sample)

    def write_summary(self, row: Row) -> None:
        """Raises FolderLost."""
        self._update_summary(row)
        self._context.folder.require_own()
        self._summary.write(self._context.folder.path)

    def _update_summary(self, row: Row) -> None:
        """Record what the training took so far, and its best score."""
        self._summary.train = TrainCost(
            steps=row["step"],
            **{name: row[name] for name in ("tokens", "bytes", "flops", "seconds", "epochs")},
            evaluation_seconds=self._progress.evaluation_seconds,
            tokens_per_second=row["tokens"] / row["seconds"] if row["seconds"] else None,
            peak_memory_bytes=self._memory.read(),
            **({"beside": self._progress.beside} if self._progress.beside else {}),
        )
        if self._progress.stream is not None and (shards := self._context.dataset.shards):
            self._summary.stream = streamed(self._progress.stream, shards)
        if (best := self._progress.best) is not None:
            self._summary.best = Best.of({name: best[name] for name in Best.model_fields})
            self._summary.val = Scored.of(
                {name: best[name] for name in Scored.model_fields if name in best}
            )

    def finish(self, guard: Guard) -> None:
        """Record the totals, however the training ended."""
        self._update_summary(self.start_row())
        if self._model.fit is not None and self._summary.parameters is not None:
            self._summary.parameters.state = sum(b.numel() for b in self._model.buffers())
        self._summary.skipped_steps = guard.skipped
        self._summary.loss_spikes = guard.spikes


def first_loss_line(loss: float, vocab_size: int) -> str:
    """An untrained model should predict uniformly: a loss of ln V."""
    uniform = math.log(vocab_size)
    line = f"first loss {loss:.3f}, ln V {uniform:.3f}"
    if abs(loss - uniform) > 0.1 * uniform:
        line += ": more than 10 % off, surer than a guess; another init may be better"
    return line


def evaluation_line(row: Row, share: float) -> str:
    """share: of the budget that is spent; the last step may go beyond it."""
    line = f"step {row['step']:>6} {min(share, 1):>4.0%}"
    if row["epochs"] is not None:
        line += f"  {row['epochs']:.3g} epochs"
    if "val/nats_per_token" in row:
        line += f"  val {row['val/nats_per_token']:.4f} nats/token"
        if row["val/bits_per_byte"] is not None:
            line += f"  {row['val/bits_per_byte']:.4f} bits/byte"
        if "val/accuracy" in row:
            line += f"  accuracy {row['val/accuracy']:.4f}"
    for name, value in row.items():
        group, _, text = name.removesuffix("/bits_per_byte").partition("/")
        if group in (ALSO, "val") and name == f"{group}/{text}/bits_per_byte":  # of a mix
            value = row.get(f"{group}/{text}/accuracy", value)
            line += f"  {text} –" if value is None else f"  {text} {value:.4f}"
    return line + f"  {row['seconds']:.0f} s"
