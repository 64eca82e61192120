"""One training, from its settings to its folder."""

from __future__ import annotations

import logging
import signal
import sys
from contextlib import nullcontext
from pathlib import Path

from harness.common.errors import UsageError
from harness.common.interrupt import INTERRUPTED, TERMINATED, Interrupt, Stopped
from harness.compute.device import Compute, make_deterministic
from harness.compute.precision import require_precision
from harness.config.settings import Settings, require_trusted
from harness.data.assets import Assets
from harness.data.corpus import Corpus
from harness.data.dataset import Dataset, prepare, require_length
from harness.loggers.build import choose_loggers
from harness.referee.before_training import require_honest
from harness.runs import checkpoint, process
from harness.runs.checkpoint import StepCheckpoint
from harness.runs.folder import RunFolder
from harness.runs.resume import is_finished, require_same_origin
from harness.training.checks import check_settings
from harness.training.context import OnBatch, RunContext, ignore
from harness.training.distributed import ProcessGroup
from harness.training.guards import NonFiniteError
from harness.training.loop import train
from harness.training.memory import require_memory
from harness.training.new_folder import create_run_folder, require_free
from harness.training.outcome import (
    explain_out_of_memory,
    first_summary,
    record_failure,
    result_line,
)
from harness.training.progress_bar import progress_bar
from zoo_tokenizers import Tokenizer, TokenizerError

LOG = logging.getLogger("harness")


def run(settings: Settings, on_batch: OnBatch = ignore) -> int:
    """Train; returns the exit code.

    Errors in the settings are found before data are read, errors in the data before the folder is
    made.
    """
    require_trusted(settings)
    processes = ProcessGroup.from_environment()
    processes.check(settings)
    if settings.resume:
        existing = RunFolder.existing(Path(settings.run_dir or ""))
        if is_finished(existing, settings):
            print(f"{existing.path} is finished already: nothing to do", file=sys.stderr)
            return 0
    elif settings.run_dir and processes.is_main:
        require_free(Path(settings.run_dir))

    compute = Compute.choose(settings.device, settings.precision, settings.tf32)
    settings = settings.replace(precision=compute.precision)  # resolved: a resumed run keeps it
    check_settings(settings, processes)
    dataset = load_dataset(settings)
    settings = settings.replace(
        names=settings.names.replace(data=dataset.name or settings.names.data)
    )
    require_memory(settings, dataset.tokenizer.vocab_size, compute.device)
    make_deterministic()  # takes a second: errors in the settings were reported before it
    with processes.connect(compute.device) as temporary:
        require_precision(settings, compute)
        require_honest(settings, dataset, compute)
        if temporary is not None:
            local = {"local": settings.logger["local"]}
            settings = settings.replace(run_dir=temporary, logger=local)
        resumes_here = settings.resume and temporary is None
        folder = existing if resumes_here else create_run_folder(settings)
        with folder.lock():
            saved = None
            if settings.resume:
                saved = checkpoint.load(existing.checkpoints, StepCheckpoint)
                require_same_origin(saved, dataset, settings, folder)
                folder.write_config(settings.dump())
            if saved is None:
                dataset.tokenizer.save(folder.tokenizer)
                folder.write_counts(dataset.counts())
            return _train(settings, dataset, compute, folder, processes, saved, on_batch)


def load_dataset(settings: Settings) -> Dataset:
    """The encoded corpus. Raises UsageError if it can't be read or is too short to train on."""
    corpus = settings.build("data", Corpus)
    tokenizer = settings.build("tokenizer", Tokenizer)
    dataset = prepare(corpus, tokenizer, Assets.of(settings.assets, settings.cache))
    require_length(dataset, settings.train.seq_len)
    try:
        tokenizer.encode(settings.eval.prompt or "")
    except TokenizerError as error:
        raise UsageError(f"eval.prompt: {error}") from error
    return dataset


def _train(
    settings: Settings,
    dataset: Dataset,
    compute: Compute,
    folder: RunFolder,
    processes: ProcessGroup,
    saved: StepCheckpoint | None,
    on_batch: OnBatch,
) -> int:
    """The loop; the summary is written however it ends. Returns the exit code."""
    summary = first_summary(settings, dataset, compute)
    interrupt = Interrupt(distributed=processes.world_size > 1)
    loggers = choose_loggers(settings, interrupt)
    with (
        folder.logging(quiet=not processes.is_main),
        interrupt.handling_signals(),
        process.process_file(folder.path) if processes.is_main else nullcontext(),
        progress_bar(settings) if processes.is_main else nullcontext(ignore) as on_row,
    ):
        LOG.info(f"run folder: {folder.path}")
        for note in dataset.notes():
            LOG.warning(note)
        summary.write(folder.path)
        context = RunContext(
            settings, dataset, compute, folder, summary, loggers, interrupt, processes,
            LOG.info, on_row, on_batch,
        )  # fmt: skip
        try:
            train(context, saved)
            summary.status, code = "finished", 0
        except Stopped as stop:
            summary.status = "stopped"
            code = TERMINATED if stop.signum == signal.SIGTERM else INTERRUPTED
            LOG.warning(f"{stop}, work saved; go on: run_dir={folder.path} resume=true")
        except KeyboardInterrupt:
            summary.status, code = "stopped", INTERRUPTED
            LOG.warning(
                "interrupted at once, nothing saved; go on from the last checkpoint: "
                f"run_dir={folder.path} resume=true"
            )
        except NonFiniteError as error:
            code = record_failure(summary, "non_finite", error)
        except Exception as error:
            code = record_failure(summary, "failed", explain_out_of_memory(error, settings))
        finally:
            try:
                summary.write(folder.path)
            finally:
                for logger in loggers:
                    logger.close(summary.plain())
    if code == 0 and processes.is_main:
        print(result_line(summary, folder))
    return code
