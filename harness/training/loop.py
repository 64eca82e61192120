"""The training loop: one function, from top to bottom, the same for every model.

At the top of an iteration the model has had `step` updates, and everything that is recorded for
`step` describes it then. B batch, T time.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.common.errors import RunFailure
from harness.common.interrupt import Interrupt, Stopped
from harness.common.rows import Row
from harness.common.text import printable
from harness.compute.costs import parameters, step_flops
from harness.compute.device import Compute
from harness.compute.memory import PeakMemory
from harness.config.identity import decisive
from harness.config.settings import Settings
from harness.data.batches import draw_batch
from harness.data.dataset import Dataset
from harness.data.encoded import Split
from harness.evaluation import batch_norm
from harness.evaluation.block_scores import write_test_blocks
from harness.evaluation.score import Score, score_split
from harness.loggers.base import Logger
from harness.observe.watch import Watch
from harness.runs import checkpoint, samples
from harness.runs.folder import RunFolder
from harness.runs.samples import Sample
from harness.runs.summary import Best, ParameterCount, Scored, Summary, TrainCost
from harness.sampling.decode import SamplingParams, generate
from harness.training.distributed import ALONE, World
from harness.training.guards import require_finite_weights
from harness.training.parameter_groups import unmarked
from harness.training.schedules import Schedule
from harness.training.trainer import Trainer
from zoo.language_model import LanguageModel


@dataclass
class Progress:
    """How far a training is; part of every checkpoint. seconds: evaluation and saving excluded."""

    step: int = 0
    tokens: int = 0
    bytes: int = 0
    seconds: float = 0.0
    best: dict[str, Any] | None = None
    frozen: bool = False
    """Whether batch normalization's statistics are frozen by now."""
    saved_best: list[int] = field(default_factory=list)
    """The best step as of each of the last two checkpoints: either may be gone back to."""

    def __post_init__(self) -> None:
        """Raises ValueError for a best score that is none."""
        if self.best is not None and not {"step", "nats", "nats_per_token"} <= self.best.keys():
            raise ValueError("the best score lacks its step or its nats")


OnBatch = Callable[[int, tuple[Tensor, Tensor]], None]


def train(
    settings: Settings,
    dataset: Dataset,
    compute: Compute,
    folder: RunFolder,
    loggers: Sequence[Logger],
    summary: Summary,
    interrupt: Interrupt,
    report: Callable[[str], None],
    on_step: Callable[[Row], None],
    saved: dict[str, Any] | None = None,
    world: World = ALONE,
    on_batch: OnBatch = lambda step, batch: None,
) -> None:
    """Train until the budget is spent, going on from the checkpoint `saved` if there is one.

    Fills in `summary` as it goes. report: told of every evaluation; on_step: of every row;
    on_batch: of every batch, with its step. world: the processes that train this model together;
    they take the same steps, and the first saves.
    Raises Stopped, its work saved, after a signal, and NonFiniteError.
    """
    plan, tokenizer = settings.train, dataset.tokenizer
    rows = plan.batch_size * plan.accumulate
    tokens_per_step = rows * len(range(plan.seq_len)[plan.trained])
    currency, total = plan.budget
    schedule = settings.build("schedule", Schedule, total=total)
    trainer = Trainer(settings, tokenizer.vocab_size, compute, world, interrupt.check)
    model, evaluated = trainer.model, trainer.evaluated
    watch = Watch(settings, model, compute)
    if line := unmarked(model):
        report(line)
    progress = Progress()

    if saved is not None:
        with checkpoint.restoring(folder.checkpoints):
            trainer.load_state_dict(saved)
            progress = checkpoint.from_checkpoint(Progress, saved["progress"])
        report(f"going on from step {progress.step}")
    # A resumed run takes the steps after its checkpoint again, and writes their records again.
    checkpoint.keep_only(folder.checkpoints, "best", progress.saved_best)
    samples.keep_before(folder.samples, progress.step)
    saved_step = progress.step if saved is not None else None
    origin: dict[str, Any] = {
        "tokenizer": tokenizer.digest,
        "corpus": dataset.digest,
        "settings": decisive(settings),
    }

    def save_checkpoint() -> None:
        nonlocal saved_step
        if saved_step == progress.step or not world.is_first:
            return
        require_finite_weights(model, progress.step)
        if progress.best is not None:
            progress.saved_best = [*progress.saved_best[-1:], progress.best["step"]]
        state = {**trainer.state_dict(), "progress": asdict(progress), **origin}
        checkpoint.save(folder.checkpoints, "step", progress.step, state, keep=[saved_step])
        checkpoint.keep_only(folder.checkpoints, "best", progress.saved_best)
        saved_step = progress.step

    def save_best(step: int) -> None:
        if world.is_first:
            state = {"model": evaluated.state_dict(), **origin}
            checkpoint.save(folder.checkpoints, "best", step, state, keep=progress.saved_best)

    def score(split: Split) -> Score:
        return score_split(
            evaluated, split, tokenizer, compute, settings.eval.stride, settings.eval.batch_size,
            lambda tokens: interrupt.check(), batch_statistics=plan.batch_norm == "batch",
        )  # fmt: skip

    def recompute_statistics(of: LanguageModel) -> None:
        """From batches that no step draws: steps are counted from 0."""
        inputs = (
            draw_batch(dataset.train.ids, settings.seed, step, rows, plan.seq_len)[0]
            for step in itertools.count(2**63)
        )
        inputs = (inputs_BT.to(compute.device) for inputs_BT in inputs)
        batch_norm.recompute(of, inputs, plan.batch_norm_samples)

    def freeze_statistics() -> None:
        if not progress.frozen:
            recompute_statistics(model)
            if evaluated is not model:  # the average is of models that from now on share these
                batch_norm.copy_statistics(model, evaluated)
            progress.frozen = True
        batch_norm.freeze(model)

    flops_per_step = (
        step_flops(
            lambda: settings.build("model", LanguageModel, vocab_size=tokenizer.vocab_size),
            plan.seq_len,
            plan.trained,
        )
        * rows
    )
    summary.receptive_field = model.receptive_field
    summary.parameters = ParameterCount(**parameters(model))
    summary.flops_per_token = flops_per_step / tokens_per_step
    memory = PeakMemory(compute.device)
    for logger in loggers:
        logger.open(folder.path, settings, progress.step)

    def spent_so_far() -> Row:
        """The start of the row of the step at hand: what all that came before has cost."""
        return {
            "step": progress.step,
            "tokens": progress.tokens,
            "bytes": progress.bytes,
            "flops": progress.step * flops_per_step,
            "seconds": progress.seconds,
        }

    try:
        while True:
            progress.seconds = world.keep_together(interrupt, progress.seconds)
            interrupt.check()
            step, row = progress.step, spent_so_far()
            spent = step if currency == "steps" else row[currency]
            finished = spent >= total
            scored = step % settings.eval.every == 0 or finished
            if scored and plan.batch_norm == "precise":  # first: what is scored is what is saved
                recompute_statistics(evaluated)
            if step and step % settings.checkpoint.every == 0:
                save_checkpoint()
            if scored:
                if dataset.val is not None:
                    with watch.validation(evaluated, dataset.val, row):
                        result = score(dataset.val)
                    row |= _prefixed("val/", result)
                    if progress.best is None or result.nats < progress.best["nats"]:
                        progress.best = {"step": step, "nats": result.nats, **result.summary()}
                        save_best(step)
                    if not finished and _out_of_patience(progress, settings):
                        finished = True
                        report("train.patience: no better score for too long, the training ends")
                report(_line(row, spent / total))
                for finding in watch.findings():
                    report(finding)
                if settings.eval.sample_tokens:
                    text = _sample(evaluated, dataset, settings, compute)
                    samples.append(folder.samples, Sample(step, text))
                _record_progress(summary, row, memory, progress)
                summary.write(folder.path)
            if finished:
                save_checkpoint()
                _log(row, loggers, on_step)
                break

            started = perf_counter()
            if plan.batch_norm == "frozen" and spent >= (1 - plan.batch_norm_frozen) * total:
                freeze_statistics()
            batch = draw_batch(dataset.train.ids, settings.seed, step, rows, plan.seq_len)
            on_batch(step, batch)
            trained = trainer.step(batch, schedule(spent), row, watch.update)
            if step == 0:
                report(_first_loss(row["train/loss"], model.vocab_size))
            progress.step += 1
            progress.tokens += len(trained)
            progress.bytes += int(tokenizer.token_bytes[trained].sum())
            _log(row, loggers, on_step)
            progress.seconds += perf_counter() - started
    except Stopped:
        save_checkpoint()
        raise
    finally:
        _record_progress(summary, spent_so_far(), memory, progress)
        summary.skipped_steps = trainer.guard.skipped
        summary.loss_spikes = trainer.guard.spikes

    if dataset.test is not None and world.is_first:
        if progress.best is not None:
            best = checkpoint.load(folder.checkpoints, "best")
            if best is None or best["step"] != progress.best["step"]:
                raise RunFailure(f"the best checkpoint, of step {progress.best['step']}, is gone")
            with checkpoint.restoring(folder.checkpoints):
                evaluated.load_state_dict(best["model"])
        test = score(dataset.test)
        summary.test = Scored.of(test.summary())
        write_test_blocks(folder.path, dataset, test)


def _out_of_patience(progress: Progress, settings: Settings) -> bool:
    patience = settings.train.patience
    if patience is None or progress.best is None:
        return False
    return progress.step - progress.best["step"] >= patience * settings.eval.every


def _first_loss(loss: float, vocab_size: int) -> str:
    """An untrained model knows nothing: its loss should be that of a uniform guess."""
    uniform = math.log(vocab_size)
    line = f"first loss {loss:.3f}, ln V {uniform:.3f}"
    if abs(loss - uniform) > 0.1 * uniform:
        line += ": more than 10 % off, the initialization is not what it should be"
    return line


def _log(row: Row, loggers: Sequence[Logger], on_step: Callable[[Row], None]) -> None:
    for logger in loggers:
        logger.log(row)
    on_step(row)


def _prefixed(prefix: str, score: Score) -> Row:
    return {
        prefix + "nats_per_token": score.nats_per_token,
        prefix + "bits_per_byte": score.bits_per_byte,
        prefix + "perplexity": score.perplexity,
    }


def _record_progress(summary: Summary, row: Row, memory: PeakMemory, progress: Progress) -> None:
    """What the training took so far, and its best score: the weights that count have it."""
    summary.train = TrainCost(
        steps=row["step"],
        **{name: row[name] for name in ("tokens", "bytes", "flops", "seconds")},
        tokens_per_second=row["tokens"] / row["seconds"] if row["seconds"] else None,
        peak_memory_bytes=memory.read(),
    )
    if (best := progress.best) is not None:
        summary.best = Best.of({name: best[name] for name in Best.model_fields})
        summary.val = Scored.of({name: best[name] for name in Scored.model_fields})


def _line(row: Row, spent: float) -> str:
    line = f"step {row['step']:>6} {spent:>4.0%}"
    if "val/nats_per_token" in row:
        line += f"  val {row['val/nats_per_token']:.4f} nats/token"
        if row["val/bits_per_byte"] is not None:
            line += f"  {row['val/bits_per_byte']:.4f} bits/byte"
    return line + f"  {row['seconds']:.0f} s"


def _sample(model: LanguageModel, dataset: Dataset, settings: Settings, compute: Compute) -> str:
    """Text that goes on from the prompt or the corpus's start."""
    ids = dataset.tokenizer.encode(settings.eval.prompt or "")
    if not len(ids):  # no prompt, or one of which a lossy tokenizer leaves nothing
        ids = dataset.train.ids[:1]
    prompt_BT = torch.from_numpy(np.asarray(ids).astype(np.int64))[None].to(compute.device)
    ids_BT = generate(
        model, prompt_BT, settings.eval.sample_tokens, SamplingParams(), settings.seed
    )
    return printable(dataset.tokenizer.decode(ids_BT[0].tolist()))
