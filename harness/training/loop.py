"""The training loop, from top to bottom, the same for every model.

At the top of an iteration the model has had `step` updates; all that is recorded for `step`
describes it then. B batch, T time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from time import perf_counter

from torch import Tensor

from harness.common.interrupt import Stopped
from harness.compute.meta import meta_model
from harness.data.batches import draw_batch, extra_batches, shuffled_batch
from harness.data.encoded import Split
from harness.evaluation import batch_norm
from harness.evaluation.block_scores import write_test_blocks
from harness.evaluation.compressors import compress_test
from harness.evaluation.own_metrics import NONE, OwnMetrics
from harness.evaluation.score import Score, score_split
from harness.evaluation.without_copied import without_copied
from harness.observe.observer import Observer
from harness.referee.certify import after_training
from harness.runs import samples
from harness.runs.blocks import FILE as BLOCKS_FILE
from harness.runs.certificate import FILE as CERTIFICATE_FILE
from harness.runs.checkpoint import StepCheckpoint
from harness.runs.samples import Sample
from harness.runs.summary import ALSO, SAMPLE, WITHOUT_COPIED, Scored
from harness.sampling.decode import sample_text
from harness.training.checkpoints import Checkpoints
from harness.training.context import RunContext
from harness.training.counting import Counter
from harness.training.extension import is_frozen, note_budget
from harness.training.guards import NonFiniteError
from harness.training.outcome import part_of_results, record_missing
from harness.training.parameter_groups import unmarked_line
from harness.training.progress import Progress
from harness.training.readings import TOGETHER
from harness.training.recorder import Recorder, evaluation_line, first_loss_line
from harness.training.schedules import Schedule
from harness.training.streamed_rows import StreamedRows
from harness.training.trainer import Trainer
from zoo.language_model import LanguageModel


def train(context: RunContext, saved: StepCheckpoint | None = None) -> None:
    """Train until the budget is spent, then score the test split and certify the score; where there
    is none, that of validation. saved: the checkpoint to resume.

    Raises Stopped after a signal and FolderLost, its work saved, and NonFiniteError.
    """
    settings, dataset, report = context.settings, context.dataset, context.report
    compute, interrupt, processes = context.compute, context.interrupt, context.processes
    plan, tokenizer = settings.train, dataset.tokenizer
    token_bytes = tokenizer.token_bytes  # counted anew whenever it is asked for
    currency, total = plan.budget
    schedule = settings.build("schedule", Schedule, total=total)
    trainer: Trainer | Counter
    if meta_model(settings).fit is not None:  # one pass over train in place of steps
        trainer = Counter(settings, tokenizer.vocab_size, compute, interrupt)
        currency, total = "steps", 1
        report("the model counts: one pass over train, whatever the budget, batches and rates")
    else:
        # A budget of seconds is spent by what the device has done, not by what it has been given.
        together = context.read_together or TOGETHER.get(compute.device.type, 1)
        together = 1 if currency == "seconds" else together
        trainer = Trainer(
            settings, tokenizer.vocab_size, compute, processes, interrupt.check, together
        )
    evaluated = trainer.evaluated
    observer = Observer(settings, trainer.model, compute)
    own = OwnMetrics.of(settings.metrics, settings.trust)
    if line := unmarked_line(trainer.model):
        report(line)
    checkpoints = Checkpoints(context, trainer)
    progress = checkpoints.resume(saved)
    progress.beside = max(progress.beside, context.beside)
    if saved is not None:
        report(f"going on from step {progress.step}")
    samples.keep_before(context.folder.samples, progress.step)
    recorder = Recorder(context, trainer.model, progress)
    note_budget(context, progress, recorder.start_row())
    if saved is not None:
        recorder.write_summary(recorder.start_row())  # what was reached, until the next evaluation

    def spent_so_far() -> float:
        spent: float = recorder.start_row()["step" if currency == "steps" else currency]
        return spent

    def log_read(now: bool) -> None:
        """Log the steps whose losses have come from the device; with `now` all."""
        for complete in trainer.rows_read(now):
            recorder.log(complete)

    stream = None if dataset.shards is None else StreamedRows(context, progress.stream)
    between_steps = True
    try:
        while True:
            interrupt.check()
            progress.seconds = processes.smallest(progress.seconds)
            step, row = progress.step, recorder.start_row()
            spent = spent_so_far()
            finished = spent >= total
            evaluating = settings.eval.is_due(step) or finished
            if evaluating:
                trainer.require_finite_weights(step)
                if plan.batch_norm == "precise":  # before saving what will be scored
                    batch_norm.recompute(evaluated, _more_batches(context), plan.batch_norm_samples)
            if checkpoints.is_due(step):
                checkpoints.save(progress)
            if evaluating:
                if dataset.val is not None:
                    begun = context.clock()
                    with observer.validation(evaluated, dataset.val, row):
                        score = _score(context, evaluated, dataset.val, own)
                    progress.evaluation_seconds += context.clock() - begun
                    row |= score.metrics("val/")
                    if progress.update_best(score):
                        checkpoints.save_best(progress)
                    if not finished and progress.out_of_patience(settings):
                        finished = True
                        report("train.patience: no better score for too long, the training ends")
                for name, other in context.also.items():
                    row |= _score(context, evaluated, other.split).metrics(f"{ALSO}/{name}/")
                for line in (evaluation_line(row, spent / total), *observer.new_findings()):
                    report(line)
                recorder.write_summary(row)
            if finished:
                checkpoints.save(progress)
                recorder.log(row)
            if evaluating and settings.eval.sample_tokens:
                with part_of_results(context.summary, f"{SAMPLE} {step}"):
                    text = sample_text(evaluated, dataset, settings, compute, interrupt.check)
                    recorder.add_sample(Sample(step, text))
            if finished:
                break

            started = context.clock()
            if isinstance(trainer, Counter):
                between_steps = False
                apart = dataset.rows in ("alone", "packed")
                targets = trainer.fit(dataset.train.ids, row, tokenizer.marker if apart else None)
            else:
                batch = _batch(context, progress, stream)
                between_steps = False
                if is_frozen(plan, spent):
                    if not progress.frozen:
                        trainer.recompute_batch_norm(_more_batches(context))
                        progress.frozen = True
                    batch_norm.freeze(trainer.model)
                context.on_batch(step, batch)
                targets = trainer.step(batch, schedule(spent), row, observer.update)
            progress.count_step(targets, token_bytes)
            if stream is not None:
                progress.stream = stream.state
            between_steps = True
            reached = progress.step
            is_due = settings.eval.is_due(reached) or checkpoints.is_due(reached)
            log_read(now=step == 0 or evaluating or is_due or spent_so_far() >= total)
            if step == 0 and "train/loss" in row:
                report(first_loss_line(row["train/loss"], tokenizer.vocab_size))
            progress.seconds += context.clock() - started
    except Stopped:
        context.folder.follow()
        log_read(now=True)
        checkpoints.save(progress)
        raise
    except Exception as error:
        # Whatever failed, what was trained is kept, wherever its folder was moved to.
        if between_steps and not isinstance(error, NonFiniteError) and context.folder.follow():
            with suppress(Exception):
                log_read(now=True)
                checkpoints.save(progress)
        raise
    finally:
        recorder.finish(trainer.guard)
        if stream is not None:
            stream.close()

    interrupt.decide_alone()
    if not processes.is_main:
        return
    is_chosen = dataset.val is None or progress.best is not None
    with part_of_results(context.summary, ALSO):
        if context.also and is_chosen:
            checkpoints.load_best(progress)
            context.summary.also = {
                name: Scored.of(
                    _score(context, evaluated, other.split).summary()
                    | {"sha256": other.span.sha256}
                )
                for name, other in context.also.items()
            }
    # Whoever trains without reading test has no final score (reads_test).
    has_test = context.summary.corpus is None or context.summary.corpus.has_test
    final = dataset.test if has_test else dataset.val
    if final is None:
        return
    if not is_chosen:
        if dataset.test is None:
            return
        why = "no validation score was finite, so no weights were chosen to score it with"
        record_missing(context.summary, "test", why)
        return
    part = CERTIFICATE_FILE if dataset.test is None else "test"
    with part_of_results(context.summary, part, needed=True):
        checkpoints.load_best(progress)
        started = perf_counter()
        score = _score(context, evaluated, final, own)
        if dataset.test is not None:
            context.summary.test = Scored.of(score.summary())
    context.folder.require_own()
    if dataset.test is not None:
        with part_of_results(context.summary, BLOCKS_FILE):
            write_test_blocks(context.folder.path, dataset, score)
            if isinstance(trainer, Counter):  # it is the floor, and so are they
                context.summary.compressors = compress_test(dataset, interrupt.check)
        context.folder.require_own()
    with part_of_results(context.summary, WITHOUT_COPIED):
        name = "val" if dataset.test is None else "test"
        context.summary.without_copied = without_copied(dataset, name, score)
    reported = context.summary.final
    assert reported is not None, "there is a score by now"
    evaluations = settings.eval.times(progress.step)  # of splits of about this size
    seconds = (perf_counter() - started) * evaluations
    with part_of_results(context.summary, CERTIFICATE_FILE):
        certificate = after_training(
            settings, dataset, compute, context.folder, evaluated, score, reported, seconds,
            interrupt.check,
        )  # fmt: skip
        if certificate is not None:
            context.summary.causal = not certificate.failed
            context.summary.certificate = certificate.words
            context.summary.definition = certificate.bound_to.definition


def _score(
    context: RunContext, model: LanguageModel, split: Split, own: OwnMetrics = NONE
) -> Score:
    settings, done = context.settings, 0

    def on_batch(tokens: int) -> None:
        nonlocal done
        context.interrupt.check()
        done += tokens
        context.on_score(done / (len(split.ids) - 1))

    return score_split(
        model, split, context.dataset.tokenizer, context.compute, settings.eval.stride,
        settings.eval.batch_size, on_batch=on_batch,
        batch_statistics=settings.train.batch_norm == "batch", own=own,
    )  # fmt: skip


def _batch(
    context: RunContext, progress: Progress, stream: StreamedRows | None
) -> tuple[Tensor, Tensor]:
    """Inputs and targets of the next step, (rows, T) each."""
    settings, plan, dataset = context.settings, context.settings.train, context.dataset
    ids, rows, seed = dataset.train.ids, plan.batch_size * plan.accumulate, settings.seed
    if stream is not None:
        return stream.batch(rows)
    if settings.data.get("order") == "shuffled":
        trained = len(range(plan.seq_len)[plan.trained])
        first = progress.tokens // trained  # a fork's parent may have had other rows
        return shuffled_batch(ids, seed, first, rows, plan.seq_len, trained)
    documents = dataset.row_documents
    return draw_batch(ids, seed, progress.step, rows, plan.seq_len, documents)


def _more_batches(context: RunContext) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and targets, (B, T) each, of batches that no step draws."""
    settings, plan, dataset = context.settings, context.settings.train, context.dataset
    rows, documents = plan.batch_size * plan.accumulate, dataset.row_documents
    ids, seed = dataset.train.ids, settings.seed
    for inputs_BT, targets_BT in extra_batches(ids, seed, rows, plan.seq_len, documents):
        context.interrupt.check()
        yield inputs_BT.to(context.compute.device), targets_BT
