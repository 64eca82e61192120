"""What is found out before a training's folder is made: does the model look ahead?

It is tried with fresh weights, at the shapes and in the modes of training and scoring, on random
texts, within a second or so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from harness.common.errors import UsageError
from harness.compute.device import Compute
from harness.config.build import resolve_class
from harness.config.model import build_model
from harness.config.settings import Settings
from harness.data.batches import row_shape
from harness.data.dataset import Dataset
from harness.referee.calls import scoring_calls, training_call
from harness.referee.perturbation import Trial
from harness.referee.state import source_digest
from harness.referee.weights import fill_zeros
from zoo.language_model import LanguageModel

SECONDS = 0.05  # after which no further positions are tried
_PASSED: set[str] = set()  # what this process has tried: a sweep's jobs are much alike


def require_honest(settings: Settings, dataset: Dataset, compute: Compute) -> None:
    """Raises UsageError with the failed check. Leaves the generators' states as they are.

    A model that can't run at all is left to the training, which reports it in its folder.
    """
    splits = [split for split in (dataset.val, dataset.test) if split is not None]
    splits = [text for split in splits for text in split.alone.values()]
    largest = max(splits, key=lambda split: len(split.ids), default=None)
    targets = len(largest.ids) - 1 if largest is not None else settings.train.seq_len
    documents = largest.documents if largest is not None else None
    vocab_size, plan = dataset.tokenizer.vocab_size, settings.train
    time, _ = row_shape(dataset.row_documents, plan.seq_len)
    cls = resolve_class(settings.model["_target_"], LanguageModel, "model", settings.trust)
    key = json.dumps(
        [
            *(source_digest(cls), settings.model, settings.init, settings.zero_residual),
            *(settings.ngrams, settings.ngram_rows),
            *(vocab_size, targets, plan.batch_size, time, plan.batch_norm),
            None if documents is None else int(documents.lengths.max()),
            *(settings.eval.batch_size, settings.eval.stride, compute.describe()),
        ]
    )
    if key in _PASSED or vocab_size < 2:  # of one id there is no other text
        return
    with _own_generators(compute):
        compute.seed(settings.seed)
        try:
            model = build_model(settings, vocab_size)
            model.initialize(settings.init, settings.zero_residual)
            fill_zeros(model).to(compute.device)
            batch_size, stride = settings.eval.batch_size, settings.eval.stride
            scoring = scoring_calls(
                model, compute, targets, batch_size, stride, documents=documents
            )
            training = training_call(model, compute, plan.batch_size, time)
            # Whose statistics are those of the batch is not causal, and its runs say so.
            calls = [training] if plan.batch_norm == "batch" else [*scoring, training]
            trials = [Trial(call, vocab_size, exact=False) for call in calls]
        except (MemoryError, RuntimeError, ValueError):
            return
        failure = next(_failures(trials), None)
    if failure is not None:
        raise UsageError(
            f"model={settings.names.model} ({cls.__name__}) is refused by the referee: {failure}; "
            "its scores could be had by looking ahead"
        )
    _PASSED.add(key)


def _failures(trials: list[Trial]) -> Iterator[str]:
    """The failed checks, each with its name."""
    for trial in trials:
        is_training = trial.call.what.startswith("training")
        if is_training and trial.memory() is not None:
            return  # random beyond the seed: the score's own calls have been tried
        if words := trial.looks_ahead(SECONDS):
            yield f"causality: {words}"
        if not is_training:
            for words in (trial.rows(0), trial.rows(1)):
                if words:
                    yield f"rows: {words}"
            if words := trial.memory():
                yield f"memory: {words}"


@contextmanager
def _own_generators(compute: Compute) -> Iterator[None]:
    """Inside, drawing from torch's generators changes nothing outside."""
    devices = [compute.device] if compute.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        yield
