"""The training loop: one function, from top to bottom, the same for every model.

At the top of an iteration the model has had `step` updates, and everything that is recorded for
`step` describes it then. B batch, T time.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from time import perf_counter
from typing import Any, cast

import numpy as np
import torch

from harness import batch_norm, checkpoint, samples
from harness.blocks import write_test_blocks
from harness.config import Settings
from harness.data import Dataset, Split, draw_batch
from harness.decode import Choice, generate
from harness.device import Compute
from harness.errors import RunFailure
from harness.gradients import Gradients
from harness.guards import Attempt, Guard, require_finite_weights
from harness.identity import decisive
from harness.interrupt import Interrupt, Stopped
from harness.loggers import Logger, Row
from harness.loss import IGNORED, add_gradients
from harness.max_norm import limit_norms, limited_weights
from harness.measure import PeakMemory, parameters, step_flops
from harness.metrics import Score, score_split
from harness.moving_average import MovingAverage
from harness.optim import build_optimizer, rates_of_parts, restore
from harness.parameter_groups import unmarked
from harness.run_folder import RunFolder, Summary
from harness.samples import Sample
from harness.schedule import Schedule
from harness.values import printable
from harness.watch.observe import Watch
from harness.world import ALONE, World
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
) -> None:
    """Train until the budget is spent, going on from the checkpoint `saved` if there is one.

    Fills in `summary` as it goes. report: told of every evaluation; on_step: of every row. world:
    the processes that train this model together; they take the same steps, and the first saves.
    Raises Stopped, its work saved, after a signal, and NonFinite.
    """
    plan, tokenizer = settings.train, dataset.tokenizer
    token_bytes = tokenizer.token_bytes
    rows = plan.batch_size * plan.accumulate
    trained = plan.trained
    tokens_per_step = rows * len(range(plan.seq_len)[trained])
    currency, total = plan.budget

    def build_model() -> LanguageModel:
        return settings.build("model", LanguageModel, vocab_size=tokenizer.vocab_size)

    torch.manual_seed(settings.seed)
    model = build_model().initialize(settings.init, settings.zero_residual).to(compute.device)
    features = torch.compile(model.features) if settings.compile else model.features
    average = MovingAverage(model, plan.ema) if plan.ema is not None else None
    evaluated = cast(LanguageModel, average.module) if average is not None else model
    optimizer = build_optimizer(settings, model)
    if line := unmarked(model):
        report(line)
    gradients, clip = Gradients(model.parameters()), plan.clip or math.inf
    peaks = rates_of_parts(settings, model)
    limited = limited_weights(model) if plan.max_norm is not None else []
    schedule = settings.build("schedule", Schedule, total=total)
    scaler = torch.amp.GradScaler(compute.device.type, enabled=compute.precision == "fp16")
    progress, guard = Progress(), Guard()
    watch = Watch(settings, model, compute)

    if saved is not None:
        with checkpoint.fitting(folder.checkpoints):
            model.load_state_dict(saved["model"])
            restore(optimizer, saved["optimizer"])
            scaler.load_state_dict(saved["scaler"])
            progress = checkpoint.rebuilt(Progress, saved["progress"])
            guard = checkpoint.rebuilt(Guard, saved["guard"])
            if average is not None:
                average.load_state_dict(saved["average"])
        report(f"going on from step {progress.step}")
    # Those of later steps belong to a past that this run does not share.
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
        state: dict[str, Any] = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        state |= {"scaler": scaler.state_dict(), "guard": asdict(guard), **origin}
        state["progress"] = asdict(progress)
        if average is not None:
            state["average"] = average.state_dict()
        checkpoint.save(folder.checkpoints, "step", progress.step, state, keep=[saved_step])
        checkpoint.keep_only(folder.checkpoints, "best", progress.saved_best)
        saved_step = progress.step

    def score(split: Split) -> Score:
        evaluation = settings.eval
        return score_split(
            evaluated, split, tokenizer, compute, evaluation.stride, evaluation.batch_size,
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

    flops_per_step = step_flops(build_model, plan.seq_len, trained) * rows
    summary |= {"receptive_field": model.receptive_field, "parameters": parameters(model)}
    summary |= {"flops_per_token": flops_per_step / tokens_per_step, "vocab_size": model.vocab_size}
    memory = PeakMemory(compute.device)
    for logger in loggers:
        logger.open(folder.path, settings, progress.step)
    attempt = Attempt(model)
    model.train()

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
            step = progress.step
            row = spent_so_far()
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
                        state = {"model": evaluated.state_dict(), **origin}
                        if world.is_first:
                            checkpoint.save(
                                folder.checkpoints, "best", step, state, keep=progress.saved_best
                            )
                    if not finished and _out_of_patience(progress, settings):
                        finished = True
                        report("train.patience: no better score for too long, the training ends")
                report(_line(row, spent / total))
                for finding in watch.findings():
                    report(finding)
                if settings.eval.sample_tokens:
                    text = _sample(evaluated, dataset, settings, compute)
                    samples.append(folder.samples, Sample(step, text))
                summary |= _reached(row, memory, progress)
                folder.write_summary(summary)
            if finished:
                save_checkpoint()
                _log(row, loggers, on_step)
                break

            started = perf_counter()
            factor = schedule(spent)
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * factor
            if plan.batch_norm == "frozen" and spent >= (1 - plan.batch_norm_frozen) * total:
                if not progress.frozen:
                    recompute_statistics(model)
                    if average is not None:  # of models that from now on share these
                        batch_norm.copy_statistics(model, evaluated)
                    progress.frozen = True
                batch_norm.freeze(model)
            inputs_BT, targets_BT = draw_batch(
                dataset.train.ids, settings.seed, step, rows, plan.seq_len
            )
            targets_BT = targets_BT[:, trained]
            learnt = targets_BT.numpy()[targets_BT.numpy() != IGNORED]
            learnt_bytes = int(token_bytes[learnt].sum())
            # Each target counts alike, whatever micro-batch it is in.
            weight = scaler.scale(torch.full((), 1 / len(learnt), device=compute.device))
            loss = torch.zeros((), device=compute.device)
            with attempt:
                for number in world.share(range(plan.accumulate)):
                    interrupt.check()
                    part = slice(number * plan.batch_size, (number + 1) * plan.batch_size)
                    # Dropout, too, is a function of its place: no generator's state need be kept.
                    compute.seed(_mix(settings.seed, step, number))
                    with compute.autocast():
                        features_BTC = features(inputs_BT[part].to(compute.device))
                    loss += add_gradients(
                        model,
                        features_BTC[:, trained],
                        targets_BT[part].to(compute.device),
                        compute,
                        weight,
                        plan.label_smoothing,
                    )
            world.add_up([loss, gradients.flat])
            scaler.unscale_(optimizer)
            norm = gradients.clip(clip)
            row |= {
                "train/loss": loss.item() / len(learnt),
                "lr": peaks[""] * factor if "" in peaks else None,
                **{f"lr/{part}": peak * factor for part, peak in peaks.items() if part},
                "grad_norm": norm,
                "grad_norm_clipped": min(norm, clip) if math.isfinite(norm) else norm,
            }
            if step == 0:
                report(_first_loss(row["train/loss"], model.vocab_size))
            if guard.admits(row, model, plan.on_non_finite == "skip", scaler.is_enabled()):
                watch.before_update(row, inputs_BT[: plan.batch_size])
                scaler.step(optimizer)
                if plan.max_norm is not None:
                    limit_norms(limited, plan.max_norm)
                if average is not None:
                    average.update_parameters(model)
                watch.after_update(row)
            else:
                attempt.undo()
            scaler.update()
            gradients.zero()
            progress.step += 1
            progress.tokens += len(learnt)
            progress.bytes += learnt_bytes
            _log(row, loggers, on_step)
            progress.seconds += perf_counter() - started
    except Stopped:
        save_checkpoint()
        raise
    finally:
        summary |= _reached(spent_so_far(), memory, progress)
        summary |= {"skipped_steps": guard.skipped, "loss_spikes": guard.spikes}

    if dataset.test is not None and world.is_first:
        if progress.best is not None:
            best = checkpoint.load(folder.checkpoints, "best")
            if best is None or best["step"] != progress.best["step"]:
                raise RunFailure(f"the best checkpoint, of step {progress.best['step']}, is gone")
            with checkpoint.fitting(folder.checkpoints):
                evaluated.load_state_dict(best["model"])
        test = score(dataset.test)
        summary["test"] = test.summary()
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


def _mix(*numbers: int) -> int:
    """A generator seed of its own for each seed, step and micro-batch."""
    return int.from_bytes(sha256(repr(numbers).encode()).digest()[:8])


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


def _reached(row: Row, memory: PeakMemory, progress: Progress) -> dict[str, Any]:
    """What the training took so far, and its best score: the weights that count have it."""
    train = {
        "steps": row["step"],
        **{name: row[name] for name in ("tokens", "bytes", "flops", "seconds")},
        "tokens_per_second": row["tokens"] / row["seconds"] if row["seconds"] else None,
        "peak_memory_bytes": memory.read(),
    }
    if progress.best is None:
        return {"train": train, "best": None, "val": None}
    best = {name: progress.best[name] for name in ("step", "nats_per_token", "bits_per_byte")}
    val = {name: value for name, value in progress.best.items() if name not in ("step", "nats")}
    return {"train": train, "best": best, "val": val}


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
    ids_BT = generate(model, prompt_BT, settings.eval.sample_tokens, Choice(), settings.seed)
    return printable(dataset.tokenizer.decode(ids_BT[0].tolist()))
