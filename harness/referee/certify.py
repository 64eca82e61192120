"""The parts of a certificate: what is checked, and what it is bound to."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable
from time import perf_counter

import numpy as np

from harness.common.interrupt import Stopped
from harness.compute.costs import parameters
from harness.compute.device import Compute
from harness.config.settings import Settings
from harness.data.dataset import Dataset, build_tokenizer
from harness.data.encoded import Split
from harness.evaluation.score import Score, score_of
from harness.referee.calls import scoring_calls
from harness.referee.decoder import Decoder, LocalDecoder
from harness.referee.perturbation import Trial
from harness.referee.sequential import BOUND, rescore_split
from harness.referee.state import buffer_values, model_digest
from harness.runs.certificate import (
    Binding,
    Certificate,
    Check,
    SequentialScore,
    scored_digest,
)
from harness.runs.device_record import found_of
from harness.runs.folder import RunFolder
from harness.runs.summary import DEFINITION, Scored
from zoo.language_model import LanguageModel
from zoo_tokenizers import Tokenizer

LOG = logging.getLogger("harness")
LEAST_SECONDS = 5.0
SHARE = 0.1  # of the time of all evaluations


def after_training(
    settings: Settings,
    dataset: Dataset,
    compute: Compute,
    folder: RunFolder,
    model: LanguageModel,
    score: Score,
    reported: Scored,
    evaluated_seconds: float,
    on_token: Callable[[], object],
) -> Certificate | None:
    """Score a sample of the test split, or of validation where there is none, again, one token at a
    time, and write the certificate. None for a score that is NaN or infinite. Changes neither the
    model nor torch's generators.

    reported: the score in the summary. evaluated_seconds: that all evaluations took; the sample
    takes a tenth of it, or five seconds. on_token: called between tokens; may raise Stopped.
    """
    split = dataset.final
    if split is None or not math.isfinite(score.nats):
        return None
    until = perf_counter() + max(LEAST_SECONDS, SHARE * evaluated_seconds)
    checks = [tokens_cover(dataset, split, as_saved(settings, dataset.tokenizer))]
    if settings.train.batch_norm == "batch":  # it says so, and was not refused before the training
        evaluation = settings.eval
        call, *_ = scoring_calls(
            model, compute, len(split.ids) - 1, evaluation.batch_size, evaluation.stride,
            batch_statistics=True, documents=split.documents,
        )  # fmt: skip
        checks.append(outcome("causality", Trial(call, model.vocab_size).looks_ahead(0)))
        scored = None
    else:
        words = "before the training, with fresh weights, at the shapes of training and scoring"
        checks.append(Check(name="causality", result="sampled", words=words))
        scored, check = scored_again(
            LocalDecoder(model, compute, on_token), split, dataset.tokenizer, score,
            compute.precision, complete=False, seed=settings.seed,
            in_time=lambda: perf_counter() < until,
        )  # fmt: skip
        checks.append(check)
    checks += of_machine(settings, compute)
    certificate = Certificate(
        made_by="training",
        complete=False,
        bound_to=bound_to(settings, dataset, folder, model, reported),
        checks=checks,
        score=scored,
        parameters=parameters(model)["total"],
        state=buffer_values(model),
    )
    certificate.write(folder.path)
    if certificate.failed:
        LOG.warning(f"not certified, so it will not be ranked: {certificate.words}")
    return certificate


def outcome(name: str, failure: str | None, passed: str = "", sampled: bool = False) -> Check:
    """A check that failed with these words, or else passed."""
    if failure is not None:
        return Check(name=name, result="failed", words=failure)
    return Check(name=name, result="sampled" if sampled else "passed", words=passed)


def of_machine(settings: Settings, compute: Compute) -> list[Check]:
    """What `harness.doctor` found of this model on this machine; none if it was never asked."""
    found = found_of(settings.names.model, compute, settings.compile)
    if found is None:
        return []
    words, right = found
    return [Check(name="machine", result="passed" if right else "failed", words=words)]


def scored_again(
    decoder: Decoder,
    split: Split,
    tokenizer: Tokenizer,
    reported: Score,
    precision: str,
    *,
    complete: bool,
    seed: int = 0,
    in_time: Callable[[], bool] = lambda: True,
) -> tuple[SequentialScore | None, Check]:
    """The sequential score of a split beside the reported one, and whether they agree."""
    try:
        found = rescore_split(decoder, split, reported.stride, complete, seed, in_time)
    except Stopped:
        raise
    except Exception as error:  # of the model's code
        words = " ".join(f"{type(error).__name__}: {error}".split())
        return None, Check(name="sequential", result="failed", words=words)
    at = found.checked
    if not np.isfinite(found.nats[at]).all():
        return None, Check(name="sequential", result="failed", words="NaN or infinite logits")
    difference = float((found.nats - reported.token_nats)[at].mean())
    count, bound = int(at.sum()), BOUND[precision]
    whole = score_of(found.nats, split, tokenizer, reported.stride)
    answers = None if split.documents is None else split.documents.scored
    own = at if answers is None or not (at & answers).any() else at & answers
    scored = SequentialScore(
        tokens=count,
        predictions=len(at),
        nats_per_token=whole.nats_per_token if at.all() else float(found.nats[own].mean()),
        bits_per_byte=whole.bits_per_byte if at.all() else None,
        difference=difference,
        bound=bound,
    )
    where = f"{count:,} of {len(at):,} tokens ({found.how})"
    if not abs(difference) <= bound:
        return scored, Check(
            name="sequential",
            result="failed",
            words=f"fed one token at a time, {where} cost {found.nats[at].mean():.4g} nats each, "
            f"{difference:+.3g} more than reported; rounding explains {bound:g}",
        )
    words = f"{where} cost what was reported, within {abs(difference):.1g} nats a token"
    if count < len(at):
        words += f"; a look ahead at 1 of 1,000 tokens escapes with {0.999**count:.1g}"
    return scored, outcome("sequential", None, words, sampled=count < len(at))


def bound_to(
    settings: Settings,
    dataset: Dataset,
    folder: RunFolder,
    model: LanguageModel,
    reported: Scored | None,
) -> Binding:
    """What the certificate of a run is for."""
    return Binding(
        definition=DEFINITION,
        weights=scored_digest(folder.checkpoints),
        source=model_digest(model),
        tokenizer=dataset.tokenizer.digest,
        corpus=dataset.digest,
        split=settings.data["split"],
        reported=reported,
    )


def as_saved(settings: Settings, tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer that comes back from the files of this one, and has encoded no text yet."""
    fresh = build_tokenizer(settings)
    fresh.restore(tokenizer.files())
    return fresh


def tokens_cover(dataset: Dataset, split: Split, saved: Tokenizer) -> Check:
    """Whether the split's ids, with the characters that they lack, are its text, and every token
    stands for the bytes that it claims; by the tokenizer as it was saved, which has kept nothing of
    the text."""
    name, tokenizer = "tokenizer", dataset.tokenizer
    if not tokenizer.lossless:
        kind = "ids" if tokenizer.of_ids else "lossy"
        words = f"{kind}: no bits per byte, and not ranked"
        return Check(name=name, result="not applicable", words=words)
    if tokenizer.leaks:
        return outcome(name, "learnt from the validation and test text, too")
    sizes, pieces = tokenizer.token_bytes, saved.pieces
    for id_, piece in enumerate(pieces):
        if sizes[id_] != len(piece):
            return outcome(name, f"claims {sizes[id_]} bytes for id {id_}, saved as {piece!r:.40}")
    start = _start(dataset, split)
    texts = list(dataset.text.strings(start, start + split.bytes))
    if split.unknown:
        unknown = re.compile("[" + re.escape("".join(split.unknown)) + "]")
        texts = [unknown.sub("", text) for text in texts]
    known = [text.encode("utf-8", "surrogateescape") for text in texts]
    ids = np.asarray(split.ids).tolist()
    back = b"".join([pieces[id_] for id_ in ids])
    is_text = back == b"".join(known)
    failure = None if is_text else "declared lossless, and its tokens are not the text"
    for text in split.texts.values():
        lacking = sum(len(each.encode()) * n for each, n in text.unknown.items())
        if int(sizes[text.ids].sum()) + lacking != text.bytes:
            failure = failure or "its tokens are not cut where the texts of the mix end"
    if is_text and split.documents is not None:
        sizes_D = np.add.reduceat(sizes[split.ids[:-1]], split.documents.borders[:-1])
        if sizes_D.tolist() != list(map(len, known)):
            failure = "its end markers are not where the documents end"
    return outcome(name, failure, f"{len(back):,} bytes come back from {len(ids):,} tokens")


def _start(dataset: Dataset, split: Split) -> int:
    """Where the split begins in the text."""
    if split is dataset.test:
        return dataset.text.size - split.bytes
    return dataset.train.bytes if split is dataset.val else 0
