"""What a run is and how it ended: its summary, its error, its line on stdout."""

from __future__ import annotations

import logging
from dataclasses import asdict

from harness.common.errors import RunFailure, UsageError
from harness.compute.device import Compute
from harness.config.settings import Settings
from harness.data.dataset import Dataset
from harness.runs.folder import RunFolder, git, versions
from harness.runs.summary import CorpusIdentity, LostText, Status, Summary

LOG = logging.getLogger("harness")
SET_LATER = (
    *("causal", "certificate", "receptive_field", "parameters", "flops_per_token"),
    *("train", "val", "test", "best"),
)


def first_summary(settings: Settings, dataset: Dataset, compute: Compute) -> Summary:
    """All that is known before the first step."""
    tokenizer = dataset.tokenizer
    return Summary(
        status="running",
        **settings.names.model_dump(),
        seed=settings.seed,
        corpus=CorpusIdentity(sha256=dataset.digest, split=settings.data["split"]),
        lossless=tokenizer.lossless,
        lost=LostText(**asdict(dataset.lost)) if dataset.lost else None,
        leaks=tokenizer.leaks,
        vocab_size=tokenizer.vocab_size,
        **dict.fromkeys(SET_LATER),
        machine=compute.describe(),
        versions=versions(),
        git=git(),
    )


def record_failure(summary: Summary, status: Status, error: Exception) -> int:
    """Put the error into the summary and the log, a bug with its traceback; returns the exit
    code."""
    is_bug = not isinstance(error, (RunFailure, UsageError))
    summary.status = status
    summary.error = f"{type(error).__name__}: {error}" if is_bug else str(error)
    LOG.error(f"error: {summary.error}", exc_info=error if is_bug else None)
    return 1


def explain_out_of_memory(error: Exception, settings: Settings) -> Exception:
    """A RunFailure that says what to lower, if memory ran out; else the error itself."""
    text = str(error) or type(error).__name__
    known = ("out of memory", "can't allocate memory")
    if not isinstance(error, MemoryError) and not any(words in text.lower() for words in known):
        return error
    return RunFailure(
        f"out of memory ({text.splitlines()[0]}); lower train.batch_size="
        f"{settings.train.batch_size} (and raise train.accumulate by as much for the same batch), "
        "train.seq_len or the model's size"
    )


def result_line(summary: Summary, folder: RunFolder) -> str:
    """The scores and the folder."""
    scores = [
        f"{name} {score.bits_per_byte:.4f} bits/byte"
        if score.bits_per_byte is not None
        else f"{name} {score.nats_per_token:.4f} nats/token"
        for name, score in (("val", summary.val), ("test", summary.test))
        if score is not None
    ]
    return "  ".join([*scores, str(folder.path)])
