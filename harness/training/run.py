"""One training, from its settings to its folder."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import sys
from contextlib import nullcontext, suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from harness.common.errors import RunFailure, UsageError
from harness.common.interrupt import INTERRUPTED, TERMINATED, Interrupt, Stopped
from harness.common.values import show
from harness.compute.device import Compute, make_deterministic
from harness.compute.precision import require_precision
from harness.config.settings import Settings, require_trusted
from harness.data.assets import Assets
from harness.data.corpus import Corpus
from harness.data.dataset import Dataset, prepare, require_length
from harness.loggers.build import choose_loggers
from harness.runs import checkpoint, process
from harness.runs.folder import RunFolder, git, versions
from harness.runs.resume import is_finished, require_same_origin
from harness.runs.summary import CorpusIdentity, LostText, Status, Summary
from harness.training.checks import check_settings
from harness.training.distributed import World
from harness.training.guards import NonFiniteError
from harness.training.loop import OnBatch, train
from harness.training.memory import require_room
from harness.training.progress_bar import ignore_row, progress_bar
from zoo_tokenizers import Tokenizer, TokenizerError

LOG = logging.getLogger("harness")


def run(settings: Settings, on_batch: OnBatch = lambda step, batch: None) -> int:
    """One training, from its settings to its folder; returns the exit code. on_batch: told of every
    batch, with its step.

    All that can be wrong with the settings is found before data are read, and all that can be wrong
    with the data before the folder is made.
    """
    require_trusted(settings)
    world = World.of_environment()
    world.check(settings)
    if settings.resume:
        folder = RunFolder.existing(Path(settings.run_dir or ""))
        if is_finished(folder, settings):
            print(f"{folder.path} is finished already: nothing to do", file=sys.stderr)
            return 0
    elif settings.run_dir and world.is_first:
        _require_free(RunFolder(Path(settings.run_dir)))

    compute = Compute.choose(settings.device, settings.precision, settings.tf32)
    settings = settings.replace(precision=compute.precision)  # resolved: a resumed run keeps it
    check_settings(settings, world)
    dataset = load_dataset(settings)
    settings = settings.replace(
        names=settings.names.replace(data=dataset.name or settings.names.data)
    )
    require_room(settings, dataset.tokenizer.vocab_size, compute.device)
    make_deterministic()  # only now: it takes a second, and a mistake is to be answered at once
    with world.joined(compute.device) as nowhere:
        require_precision(settings, compute)
        before = folder if settings.resume else None
        if nowhere is not None:
            local = {"local": settings.logger["local"]}
            settings = settings.replace(run_dir=nowhere, logger=local)
        if before is None or nowhere is not None:
            folder = _create_folder(settings)
        with folder.lock():
            saved = None
            if before is not None:
                saved = checkpoint.load(before.checkpoints, "step")
                require_same_origin(saved, dataset, settings, folder)
                folder.write_config(settings.dump())
            if saved is None:
                dataset.tokenizer.save(folder.tokenizer)
                folder.write_counts(dataset.counts())
            return _train(settings, dataset, compute, folder, saved, world, on_batch)


def load_dataset(settings: Settings) -> Dataset:
    """The encoded corpus. Raises UsageError if it can't be had or is too short to train on."""
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
    saved: dict[str, Any] | None,
    world: World,
    on_batch: OnBatch,
) -> int:
    """The loop, and what a run leaves behind however it ends."""

    summary = _first_summary(settings, dataset, compute)
    interrupt = Interrupt(together=world.size > 1)
    loggers = choose_loggers(settings, interrupt)
    with (
        folder.logging(quiet=not world.is_first),
        interrupt.listening(),
        process.process_file(folder.path) if world.is_first else nullcontext(),
        progress_bar(settings) if world.is_first else nullcontext(ignore_row) as on_step,
    ):
        LOG.info(f"run folder: {folder.path}")
        for note in dataset.notes():
            LOG.warning(note)
        summary.write(folder.path)
        try:
            train(
                settings, dataset, compute, folder, loggers, summary, interrupt, LOG.info, on_step,
                saved, world, on_batch,
            )  # fmt: skip
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
        except RunFailure as error:
            code = record_failure(summary, "failed", error)
        except Exception as error:
            code = record_failure(summary, "failed", _out_of_memory(error, settings) or error)
        finally:
            try:
                summary.write(folder.path)
            finally:
                for logger in loggers:
                    logger.close(summary.plain())
    if code == 0 and world.is_first:
        print(_result(summary, folder))
    return code


def record_failure(summary: Summary, status: Status, error: Exception) -> int:
    """Say in the summary and the log how the run failed; a bug with its traceback."""
    clear = isinstance(error, (RunFailure, UsageError))
    summary.status = status
    summary.error = str(error) if clear else f"{type(error).__name__}: {error}"
    LOG.error(f"error: {summary.error}", exc_info=None if clear else error)
    return 1


def _out_of_memory(error: Exception, settings: Settings) -> RunFailure | None:
    """What to lower, if memory ran out: the batch size never changes by itself."""
    text = str(error) or type(error).__name__
    known = ("out of memory", "can't allocate memory")
    if not isinstance(error, MemoryError) and not any(words in text.lower() for words in known):
        return None
    return RunFailure(
        f"out of memory ({text.splitlines()[0]}); lower train.batch_size="
        f"{settings.train.batch_size} (and raise train.accumulate by as much for the same batch), "
        "train.seq_len or the model's size"
    )


def _first_summary(settings: Settings, dataset: Dataset, compute: Compute) -> Summary:
    unknown_yet = (
        *("receptive_field", "parameters", "flops_per_token"),
        *("train", "val", "test", "best"),
    )
    return Summary(
        status="running",
        **settings.names.model_dump(),
        seed=settings.seed,
        corpus=CorpusIdentity(sha256=dataset.digest, split=settings.data["split"]),
        lossless=dataset.tokenizer.lossless,
        lost=LostText(**asdict(dataset.lost)) if dataset.lost else None,
        leaks=dataset.tokenizer.leaks,
        causal=settings.train.batch_norm != "batch",
        vocab_size=dataset.tokenizer.vocab_size,
        **dict.fromkeys(unknown_yet),
        machine=compute.describe(),
        versions=versions(),
        git=git(),
    )


def _result(summary: Summary, folder: RunFolder) -> str:
    """The one line on stdout: what the run came to."""
    scores = [
        f"{name} {score.bits_per_byte:.4f} bits/byte"
        if score.bits_per_byte is not None
        else f"{name} {score.nats_per_token:.4f} nats/token"
        for name, score in (("val", summary.val), ("test", summary.test))
        if score is not None
    ]
    return "  ".join([*scores, str(folder.path)])


def _require_free(folder: RunFolder) -> None:
    """Raises UsageError if the folder is there already or can't be made."""
    try:
        if folder.path.exists():
            raise folder.already_exists()
        base = next(parent for parent in folder.path.absolute().parents if parent.exists())
    except OSError as error:
        raise UsageError(f"run_dir={show(folder.path)}: {error.strerror}") from error
    if not (base.is_dir() and os.access(base, os.W_OK)):
        raise UsageError(f"run_dir={show(folder.path)}: {base} is no folder that can be written to")


def _create_folder(settings: Settings) -> RunFolder:
    """The folder of a fresh run: run_dir, or else the first free name of this second."""
    if settings.run_dir:
        folder = RunFolder(Path(settings.run_dir))
        folder.create(settings.dump())
        return folder
    now, names = datetime.now(), settings.names
    name = f"{now:%H-%M-%S}-{names.model}-{names.tokenizer}-s{settings.seed}"
    for number in itertools.count(1):
        folder = RunFolder(
            Path("runs") / f"{now:%Y-%m-%d}" / (name if number == 1 else f"{name}-{number}")
        )
        with suppress(UsageError):  # another process's, perhaps made this very moment
            folder.create(settings.dump())
            return folder
    raise AssertionError("unreachable")
