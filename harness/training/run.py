"""One training, from its settings to its folder."""

from __future__ import annotations

import dataclasses
import logging
import sys
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial

from harness.common import contained
from harness.common.clock import Clock
from harness.common.errors import RunFailure, UsageError
from harness.common.files import write_atomically, writing
from harness.common.interrupt import INTERRUPTED, Interrupt, Stopped, exit_code
from harness.common.paths import CONF
from harness.compute.compiler import require_compiler
from harness.compute.device import DTYPES, Compute, make_deterministic, say_if_slow
from harness.compute.meta import meta_model
from harness.compute.precision import require_precision
from harness.compute.race import faster_precision
from harness.config.settings import Settings, require_trusted
from harness.config.spelling import typed
from harness.data.alone import LoneText, encode_alone, encode_further
from harness.data.assets import Assets
from harness.data.corpus import Corpus
from harness.data.dataset import Dataset, build_tokenizer, prepare, require_length
from harness.loggers.build import choose_loggers
from harness.referee.before_training import require_honest
from harness.runs import checkpoint, digests, process
from harness.runs.checkpoint import BestCheckpoint, StepCheckpoint
from harness.runs.folder import RunFolder
from harness.runs.fork import Parent, parent_of
from harness.runs.load import stored_tokenizer
from harness.runs.resume import (
    changes_since,
    has_begun,
    is_finished,
    repair_tokenizer,
    require_same_origin,
    require_same_text,
    run_to_resume,
    with_budget,
)
from harness.runs.summary import texts_of
from harness.sampling.decode import encode_prompt
from harness.training import launcher
from harness.training.checks import check_settings
from harness.training.context import OnBatch, RunContext, ignore
from harness.training.devices import ALONE, Place
from harness.training.disk import checkpoints_to_keep
from harness.training.distributed import ProcessGroup
from harness.training.flops import before_fork
from harness.training.loop import train
from harness.training.memory import require_memory
from harness.training.new_folder import create_run_folder, require_free
from harness.training.optim import require_same_groups
from harness.training.outcome import (
    explain_out_of_memory,
    first_summary,
    keep_from_before,
    log_failure,
    record_failure,
    result_line,
)
from harness.training.progress_bar import ProgressBar, progress_bar
from zoo_tokenizers import TokenizerError

LOG = logging.getLogger("harness")


def run(
    settings: Settings,
    on_batch: OnBatch = ignore,
    *,
    candidate: bool = False,
    reads_test: bool = True,
    place: Place = ALONE,
) -> int:
    """Train; returns the exit code. candidate: as in `Summary`. reads_test: whether test is scored.
    place: of a job beside others, which keep the screen free.

    Errors in the settings are found before data are read, errors in the data before the folder is
    made.
    """
    require_trusted(settings)
    code = None
    while code is None:
        code = _attempt(settings, on_batch, candidate, reads_test, place)
    return code


def _attempt(
    settings: Settings, on_batch: OnBatch, candidate: bool, reads_test: bool, place: Place
) -> int | None:
    """None if another training began in the folder while the data were read: decide again. Of
    several processes one alone can see that, and they leave as unequal."""
    asked = settings
    processes = ProcessGroup.from_environment()
    processes.check(settings)
    existing = run_to_resume(settings)
    if existing is not None and is_finished(existing, settings):
        return _nothing_to_do(existing)
    parent = None if existing is not None and _has_checkpoint(existing) else parent_of(settings)
    if existing is None and settings.run_dir and processes.is_main:
        require_free(settings)

    device = place.device or settings.device
    # A compiled model has its own calls of the BLAS.
    matmul = "blas" if settings.compile else settings.matmul
    compute = Compute.choose(device, settings.precision, settings.tf32, matmul)
    # Resolved: a resumed run keeps it.
    settings = settings.replace(precision=compute.precision, matmul=compute.matmul)
    orthogonalize = settings.optimizer.get("orthogonalize")
    if orthogonalize == "auto":
        chosen = {"orthogonalize": faster_precision(compute.device.type)}
        settings = settings.replace(optimizer=settings.optimizer | chosen)
    elif orthogonalize in DTYPES:
        name = f"optimizer.orthogonalize={orthogonalize}"
        say_if_slow(name, orthogonalize, compute.device.type)
    check_settings(settings, processes)
    dataset = load_dataset(settings, existing if parent is None else parent.folder)
    if not reads_test:
        dataset = dataclasses.replace(dataset, test=None)
    also = _other_texts(settings, dataset)
    if dataset.name and (CONF / "data" / f"{settings.names.data}.yaml").exists():  # none was typed
        settings = settings.replace(names=settings.names.replace(data=dataset.name))
    if parent is not None:
        require_same_text(parent.state, dataset, f"{settings.fork_from} can't be forked")
        require_same_groups(parent.state.optimizer, settings, meta_model(settings))
    require_memory(settings, dataset.tokenizer.vocab_size, compute.device)
    count, documents = dataset.tokenizer.vocab_size, dataset.row_documents
    if line := checkpoints_to_keep(settings, count, documents):
        print(line, file=sys.stderr)
    make_deterministic(settings.compile)
    own = partial(launcher.identity, settings, dataset, compute.device)
    with processes.connect(compute.device, own) as temporary:
        require_precision(settings, compute)
        require_compiler(settings, compute)
        require_honest(settings, dataset, compute)
        if temporary is not None:
            local = {"local": settings.logger["local"]}
            settings = settings.replace(run_dir=temporary, checkpoint_dir=None, logger=local)
        folder = existing if temporary is None else None
        folder = folder or create_run_folder(settings)
        with folder.lock():
            # Another training may have had the folder since this one looked.
            begun = existing is None and has_begun(folder)
            finished = existing is not None and is_finished(existing, asked)
            start = {"start": "finished" if finished else "begun meanwhile" if begun else "step 0"}
            saved = None
            if existing is not None and not finished:
                saved = checkpoint.load(existing.checkpoints, StepCheckpoint)
                if saved is not None:
                    saved = with_budget(saved, existing)
                    if saved.tokenizer != dataset.tokenizer.digest:  # the folder's was changed
                        dataset = load_dataset(settings, existing, anew=True)
                        also = _other_texts(settings, dataset)
                        if not reads_test:
                            dataset = dataclasses.replace(dataset, test=None)
                    digest = checkpoint.digest_of(existing.checkpoints, saved)
                    start = {"start": f"step {saved.step}", "checkpoint": digest}
            if saved is None and parent is not None:
                digest = checkpoint.digest_of(parent.folder.checkpoints, parent.state)
                start |= {"fork_from": digest}
            processes.require_equal(start)
            if begun:
                return None
            if existing is None:
                checkpoint.require_none(folder.checkpoints, StepCheckpoint, BestCheckpoint)
            elif finished:
                return _nothing_to_do(existing)
            elif saved is not None or parent is None:
                require_same_origin(saved, dataset, settings, existing)
                if saved is not None and saved.optimizer:
                    require_same_groups(saved.optimizer, settings, meta_model(settings))
            if not folder.config.exists():  # resume=auto, in a folder that was there
                folder.write_config(settings.dump())
            if saved is not None:
                parent = None
            return _train(
                settings, dataset, also, compute, folder, processes, saved, parent, on_batch,
                candidate, place,
            )  # fmt: skip


def _has_checkpoint(folder: RunFolder) -> bool:
    return bool(checkpoint.list_steps(folder.checkpoints, StepCheckpoint))


def _go_on(folder: RunFolder) -> str:
    return f"{typed('run_dir', str(folder.path))} resume=true"


def _nothing_to_do(folder: RunFolder) -> int:
    if (folder.path / process.FILE).exists():  # one was killed after its last write
        with suppress(UsageError, RunFailure), folder.lock():
            pass
    print(f"{folder.path} is finished already: nothing to do", file=sys.stderr)
    return 0


def load_dataset(settings: Settings, of: RunFolder | None = None, anew: bool = False) -> Dataset:
    """The encoded corpus. of: the run that is resumed, whose tokenizer is used unless it is
    damaged, or is to be made anew.

    Raises UsageError if it can't be read or is too short to train on.
    """
    corpus = settings.build("data", Corpus)
    tokenizer, is_ready = build_tokenizer(settings), False
    assets = Assets.of(settings.assets, settings.cache)
    if of is not None:
        assets = assets.of_stranger(settings.trust, *texts_of(of.path))
        with suppress(UsageError):
            if not anew:
                tokenizer, is_ready = stored_tokenizer(settings, of), True
    dataset = prepare(corpus, tokenizer, assets, is_ready=is_ready)
    dataset = dataset.with_part_of_validation(settings.eval.part)
    require_length(dataset, settings.train.seq_len)
    try:
        encode_prompt(tokenizer, settings.eval.prompt)
    except TokenizerError as error:
        raise UsageError(f"eval.prompt: {error}") from error
    return dataset


def _other_texts(settings: Settings, dataset: Dataset) -> dict[str, LoneText]:
    assets, tokenizer = Assets.of(settings.assets, settings.cache), dataset.tokenizer
    corpus, seq_len = settings.build("data", Corpus), settings.train.seq_len
    own = encode_further(corpus, tokenizer, assets, seq_len)
    return own | encode_alone(settings.eval.also or {}, "eval.also.", tokenizer, assets)


def _train(
    settings: Settings,
    dataset: Dataset,
    also: dict[str, LoneText],
    compute: Compute,
    folder: RunFolder,
    processes: ProcessGroup,
    saved: StepCheckpoint | None,
    parent: Parent | None,
    on_batch: OnBatch,
    candidate: bool,
    place: Place,
) -> int:
    """The loop; the summary is written however it ends. parent: of a fork that is to begin. Returns
    the exit code."""
    summary = first_summary(settings, dataset, compute, processes)
    if candidate:
        summary.candidate = True
    if parent is not None:
        summary.lineage = parent.ancestors()
    interrupt, clock = Interrupt(processes.agree), Clock()
    loggers = choose_loggers(settings, interrupt)
    code, failure = 1, None
    quiet = not processes.is_main or place.beside > 0
    shown: AbstractContextManager[ProgressBar | None] = (
        nullcontext() if quiet else progress_bar(settings)
    )
    with (
        folder.logging(quiet=quiet),
        interrupt.handling_signals(),
        clock.running(),
        shown as bar,
    ):
        LOG.info(f"run folder: {folder.path}")
        for note in dataset.notes():
            LOG.warning(note)
        for name, text in also.items():
            for note in text.notes(name, dataset.digest):
                LOG.warning(note)
        context = RunContext(
            settings, dataset, compute, folder, summary, loggers, interrupt, processes, clock,
            LOG.info, bar.row if bar else ignore, bar.score if bar else ignore, on_batch, also,
            place.beside,
        )  # fmt: skip
        try:
            _write_beginning(context, saved, parent)
            if parent is not None:
                saved = parent.copy(folder, settings, before_fork(parent, settings, dataset))
                LOG.info(f"forked from {settings.fork_from}")
            train(context, saved)
            folder.require_own()
            summary.status, code = "finished", 0
        except Stopped as stop:
            summary.status = "stopped"
            code = exit_code(stop.signum)
            LOG.warning(f"{stop}, work saved; go on: {_go_on(folder)}")
        except KeyboardInterrupt:
            summary.status, code = "stopped", INTERRUPTED
            LOG.warning(
                "interrupted at once, nothing saved; go on from the last checkpoint: "
                f"{_go_on(folder)}"
            )
        except Exception as error:
            failure = explain_out_of_memory(error, settings)
            record_failure(summary, failure)
        finally:
            code = _write_end(context, code, failure)
    if code == 0 and processes.is_main:
        print(result_line(summary, folder))
    return code


def _write_beginning(
    context: RunContext, saved: StepCheckpoint | None, parent: Parent | None
) -> None:
    """The status before the configuration: a finished run that is extended is not finished any
    more, whatever is written next."""
    settings, folder, tokenizer = context.settings, context.folder, context.dataset.tokenizer
    if saved is not None and context.processes.is_main:
        for line in (
            changes_since(folder, context.summary),
            repair_tokenizer(settings, folder, tokenizer),
        ):
            if line:
                LOG.warning(line)
    if parent is not None and (line := changes_since(parent.folder, context.summary, "forked")):
        LOG.warning(line)
    if context.processes.is_main:
        keep_from_before(context.summary, folder)  # also where it begins again: before step 1
        for line in digests.complaints(folder.path):
            LOG.warning(line)
        with writing(folder.path / digests.FILE):
            contained.unlink(folder.path / digests.FILE)
    context.summary.write(folder.path)
    if settings.resume:
        folder.write_config(settings.dump())
    if saved is None:
        with writing(folder.tokenizer):
            tokenizer.save(folder.tokenizer, partial(write_atomically, inside=2))
    folder.write_counts(context.dataset.counts())


def _write_end(context: RunContext, code: int, error: Exception | None) -> int:
    """The summary, unless the folder is gone; to the screen and the log what is missing; the
    summary to the loggers; and last, whatever came of that, the error. Returns the exit code."""
    folder, summary = context.folder, context.summary
    try:
        if folder.follow():
            summary.write(folder.path)
        else:
            code = code or 1
    except RunFailure as failure:
        LOG.warning(f"how it ended is not recorded: {failure}")
        error, code = error or failure, code or 1
    if summary.status == "failed" and (parts := summary.to_be_made()):
        LOG.warning(f"all but {', '.join(parts)} is saved; to do the rest: {_go_on(folder)}")
    for logger in context.loggers:
        try:
            logger.close(summary.shown())
        except Exception as broken:
            LOG.warning(f"{type(logger).__name__}: {type(broken).__name__}: {broken}")
    if folder.follow() and context.processes.is_main:
        try:
            digests.write(folder.path)
        except RunFailure as failure:
            LOG.warning(failure)
    if error is not None:
        log_failure(error)
    return code
