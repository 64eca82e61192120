"""Errors in a configuration that are found before data are read."""

from __future__ import annotations

import inspect

from harness.common.errors import UsageError
from harness.compute.costs import step_flops
from harness.compute.meta import meta_model
from harness.config.model import build_model
from harness.config.settings import Settings
from harness.data.corpus import Corpus
from harness.data.dataset import build_tokenizer
from harness.data.stream import StreamedDocuments
from harness.evaluation import batch_norm
from harness.evaluation.own_metrics import OwnMetrics
from harness.evaluation.score import resolve_stride
from harness.loggers.build import build_logger
from harness.training.counting import require_countable
from harness.training.distributed import SINGLE_PROCESS, ProcessGroup
from harness.training.max_norm import max_norm_weights
from harness.training.optim import check_arguments, check_optimizer
from harness.training.schedules import Schedule
from zoo.language_model import LanguageModel

BYTES = tuple(bytes([value]) for value in range(256))


def check_settings(settings: Settings, processes: ProcessGroup = SINGLE_PROCESS) -> None:
    """Build everything that needs no data. Raises UsageError for settings that can't be trained."""
    # The fast checks first: building an optimizer loads torch's compiler.
    settings.check("model", LanguageModel, vocab_size=256)
    check_arguments(settings)
    settings.build("schedule", Schedule, total=settings.train.budget[1])
    corpus = settings.build("data", Corpus)
    tokenizer = build_tokenizer(settings)
    OwnMetrics.of(settings.metrics, settings.trust)
    for name in settings.logger:
        build_logger(settings, name)
    model = _initialized_meta_model(settings)
    if model.reads_bytes and tuple(tokenizer.pieces[: len(BYTES)]) != BYTES:  # and an end marker
        raise UsageError(
            f"model={settings.names.model} reads bytes: choose tokenizer=bytes, not "
            f"{settings.names.tokenizer}"
        )
    if model.block_size is not None:
        if settings.train.seq_len > model.block_size:
            raise UsageError(
                f"train.seq_len={settings.train.seq_len} exceeds the model's "
                f"block_size={model.block_size}"
            )
        try:
            resolve_stride(model.block_size, settings.eval.stride)
        except ValueError as error:
            raise UsageError(f"eval.{error}") from error
    if corpus.rows in ("alone", "packed"):
        _require_apart(settings, corpus.rows, model)
    if corpus.of_documents and settings.train.batch_norm == "batch" and batch_norm.layers(model):
        raise UsageError(
            f"data={settings.names.data}: train.batch_norm=batch would count the padding of a "
            "score's batches of documents; take moving, precise or frozen"
        )
    if model.fit is not None:
        if isinstance(corpus, StreamedDocuments):
            raise UsageError(
                f"model={settings.names.model} counts all of train, and data={settings.names.data} "
                "has no end: take data=text or data=lines"
            )
        require_countable(settings, processes)
        if corpus.weights is not None:
            raise UsageError(
                f"model={settings.names.model} counts every train text once: take data.weights=null"
            )
        return
    if settings.train.budget[0] == "flops" and not _step_flops(settings):
        raise UsageError(f"train.flops never ends: {settings.names.model} costs no FLOPs")
    if settings.train.patience is not None and not settings.data["split"][1]:
        raise UsageError("train.patience needs a validation split; data.split leaves none")
    if settings.train.budget[0] == "bytes" and tokenizer.of_ids:
        raise UsageError(f"train.bytes never ends: the ids of data={settings.names.data} have none")
    check_optimizer(settings, model)
    batch_norm.require_layers(model, settings.train.batch_norm)
    batch_norm.require_values(model, settings.train.batch_size, settings.train.seq_len)
    if processes.world_size > 1 and batch_norm.layers(model):
        raise UsageError(
            "batch normalization: each process would use the statistics of its own share; train "
            "this model in one process"
        )
    if settings.train.max_norm is not None and not max_norm_weights(model):
        raise UsageError("train.max_norm: the model has no weights but embeddings")


def _require_apart(settings: Settings, rows: str, model: LanguageModel) -> None:
    """Raises UsageError for what is not possible with documents that don't see each other."""
    where, has_choice = f"data={settings.names.data} has documents", "rows" in settings.data
    if has_choice:
        where += f", in rows of data.rows={rows}"

    def instead(words: str) -> str:
        return words if has_choice else ""  # a task's examples always stand alone

    if rows == "alone" and settings.train.positions != "all":
        raise UsageError(
            f"{where}: train.positions={settings.train.positions} would be padding of short ones"
            + instead("; take data.rows=packed")
        )
    if rows == "packed" and settings.compile:
        raise UsageError(f"{where}: compile=true would compile for each length of a document")
    norms = batch_norm.layers(model)
    if norms and not (has_choice and rows == "alone" and batch_norm.can_leave_out_padding(norms)):
        raise UsageError(
            f"{where}: batch normalization would count the padding of short ones; take another "
            f"norm of the model{instead(', or data.rows=across')}"
        )
    if norms and settings.train.batch_size == 1:
        raise UsageError(
            f"{where}: batch normalization needs more than one position, which a short one may not "
            "have; raise train.batch_size"
        )
    if model.auxiliary:
        raise UsageError(
            f"{where}: the auxiliary losses {', '.join(model.auxiliary)} would count the padding "
            f"of short ones{instead('; take data.rows=across')}"
        )
    if model.fit is not None and "marker" not in inspect.signature(model.fit).parameters:
        raise UsageError(
            f"{where}: model={settings.names.model} counts across them; take data.rows=across, or "
            "give its `fit` a `marker`"
        )


def _initialized_meta_model(settings: Settings) -> LanguageModel:
    try:
        return meta_model(settings, initialized=True)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _step_flops(settings: Settings) -> float:
    return step_flops(lambda: build_model(settings, 256), 1)
