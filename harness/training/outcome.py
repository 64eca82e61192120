"""What a run is and how it ended: its summary, its error, its line on stdout."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict

from harness.common.errors import RunFailure, UsageError, is_out_of_memory
from harness.common.interrupt import Stopped
from harness.compute.device import Compute
from harness.config.settings import Settings
from harness.data.dataset import Dataset
from harness.data.encoded import PARTS
from harness.runs.damage import DamageError
from harness.runs.folder import RunFolder, git, versions
from harness.runs.lock import FolderLost
from harness.runs.summary import (
    CorpusIdentity,
    LostText,
    MixedText,
    Scored,
    Summary,
    read_summary,
)
from harness.training.distributed import ProcessGroup
from harness.training.guards import NonFiniteError

LOG = logging.getLogger("harness")
SET_LATER = (
    *("causal", "certificate", "receptive_field", "parameters", "flops_per_token"),
    *("train", "val", "test", "best"),
)


def first_summary(
    settings: Settings, dataset: Dataset, compute: Compute, processes: ProcessGroup
) -> Summary:
    """All that is known before the first step."""
    tokenizer, count = dataset.tokenizer, processes.world_size
    corpus = CorpusIdentity.of(
        {"sha256": dataset.digest, "split": settings.data["split"], **dataset.text.counts}
    )
    if dataset.rows is not None:
        corpus.rows = dataset.rows
    if dataset.weights is not None:
        parts = {name: span.texts for name, span in zip(PARTS, dataset.parts, strict=True)}
        corpus.mixed = {
            name: MixedText(
                weight=weight,
                sha256=dataset.text.digests[place],
                **{part: spans[place].sha256 for part, spans in parts.items()},
            )
            for place, (name, weight) in enumerate(dataset.weights.items())
        }
    if dataset.task is not None:
        corpus.chance = dataset.task.chance
    return Summary(
        status="running",
        **settings.names.model_dump(),
        seed=settings.seed,
        corpus=corpus,
        lossless=tokenizer.lossless,
        lost=LostText(**asdict(dataset.lost)) if dataset.lost else None,
        leaks=tokenizer.leaks,
        vocab_size=tokenizer.vocab_size,
        **dict.fromkeys(SET_LATER),
        machine=compute.describe() | ({"processes": count} if count > 1 else {}),
        versions=versions(),
        git=git(),
    )


def record_failure(summary: Summary, error: Exception) -> None:
    """Put the status and the error into the summary."""
    summary.status = "non_finite" if isinstance(error, NonFiniteError) else "failed"
    summary.error = _one_line(error)


def log_failure(error: Exception) -> None:
    """A bug with its traceback."""
    LOG.error(f"error: {_one_line(error)}", exc_info=error if _is_bug(error) else None)


def record_missing(summary: Summary, part: str, why: str) -> None:
    """Name a part of the results that the run will lack, in the summary and the log."""
    summary.missing = {**(summary.missing or {}), part: why}
    LOG.warning(f"missing: {part} ({why})")


def keep_from_before(summary: Summary, folder: RunFolder) -> None:
    """Of a run that is resumed: what it lacked before, it lacks until that is made. A candidate
    stays one, and a fork."""
    with suppress(OSError, DamageError):
        before = read_summary(folder.path)
        if before.missing:
            summary.missing = before.missing
        if before.candidate:
            summary.candidate = True
        if before.lineage:
            summary.lineage = before.lineage


@contextmanager
def part_of_results(summary: Summary, part: str, *, needed: bool = False) -> Iterator[None]:
    """A stage whose failure costs nothing but this part of the results: it is recorded as missing,
    until a resume makes it. needed: the run fails, too. A signal, and the loss of the folder, are
    passed on."""
    try:
        yield
    except (Stopped, FolderLost):
        raise
    except Exception as error:
        record_missing(summary, part, _one_line(error))
        if needed:
            raise
        if _is_bug(error):
            LOG.debug("where it failed:", exc_info=error)
    else:
        _record_made(summary, part)


def _record_made(summary: Summary, part: str) -> None:
    left = {name: why for name, why in (summary.missing or {}).items() if name != part}
    summary.missing = left or None
    if not left:
        summary.model_fields_set.discard("missing")  # then it is not written


def _is_bug(error: Exception) -> bool:
    return not isinstance(error, (RunFailure, UsageError))


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if _is_bug(error) else str(error)


def explain_out_of_memory(error: Exception, settings: Settings) -> Exception:
    """A RunFailure that says what to lower, if memory ran out; else the error itself."""
    text = str(error) or type(error).__name__
    if not is_out_of_memory(error):
        return error
    return RunFailure(
        f"out of memory ({text.splitlines()[0]}); lower train.batch_size="
        f"{settings.train.batch_size} (and raise train.accumulate by as much for the same batch), "
        "train.seq_len or the model's size"
    )


def _accuracy(score: Scored) -> str:
    return "" if score.accuracy is None else f", accuracy {score.accuracy:.4f}"


def result_line(summary: Summary, folder: RunFolder) -> str:
    """The scores and the folder."""
    scores = [
        f"{name} {score.bits_per_byte:.4f} bits/byte"
        if score.bits_per_byte is not None
        else f"{name} {score.nats_per_token:.4f} nats/token{_accuracy(score)}"
        for name, score in (("val", summary.val), ("test", summary.test))
        if score is not None and not (name == "test" and summary.candidate)
    ]
    return "  ".join([*scores, str(folder.path)])
