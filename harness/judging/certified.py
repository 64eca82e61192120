"""Only certified models are judged: before a judgement by their code, and each training by its own
score of a split, scored again one token at a time."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path

import torch

from harness.common.errors import RunFailure
from harness.compute.costs import parameters
from harness.compute.device import make_deterministic
from harness.evaluation.score import score_split
from harness.judging.sides import Side
from harness.referee.certify import bound_to, outcome, scored_again
from harness.referee.decoder import LocalDecoder
from harness.referee.process import Source, fresh_decoder
from harness.referee.sequential import BOUND
from harness.referee.state import buffer_values
from harness.referee.verify import verify_model
from harness.runs import certificate
from harness.runs.certificate import Certificate
from harness.runs.damage import DamageError
from harness.runs.load import load_run
from harness.runs.summary import read_summary


def require_certified_code(side: Side) -> None:
    """Raises RunFailure, naming the check, if the model with fresh weights fails one."""
    found = verify_model(side.settings, complete=False, device=side.settings.device)
    if found.failed:
        raise RunFailure(f"{side.text} is not judged, its certificate {found.words}")


def certified_score(folder: Path, side: Side, split_name: str) -> float:
    """Bits per byte of a training's best weights on a split, val or test. Raises RunFailure if the
    training fails a check there. The certificate for val is kept in the training's folder."""
    try:
        summary = read_summary(folder)
        kept = certificate.read(folder) if split_name == "val" else None
    except (OSError, DamageError) as error:
        raise RunFailure(f"{folder} can't be read: {error}") from error
    reported = summary.val.bits_per_byte if summary.val else None
    if kept is None or not kept.is_own or certificate.why_unfit(kept, folder, summary):
        kept, reported = _certify(folder, side, split_name, reported)
    if kept.failed:
        raise RunFailure(f"{side.text} is not judged, its certificate {kept.words} ({folder})")
    assert reported is not None, "certified without a score"
    return reported


def _certify(
    folder: Path, side: Side, split_name: str, reported: float | None
) -> tuple[Certificate, float | None]:
    """The certificate for a split, and its score. reported: for val, what the training says. Test
    is read once: all of it is scored again, by a process that never held the text."""
    run = load_run(folder, "best", side.settings.device, side.settings.trust)
    dataset = run.dataset()
    split = getattr(dataset, split_name)
    make_deterministic()
    score = score_split(
        run.model, split, run.tokenizer, run.compute, run.settings.eval.stride,
        run.settings.eval.batch_size, batch_statistics=run.settings.train.batch_norm == "batch",
    )  # fmt: skip
    found = score.bits_per_byte
    precision, seed, final = run.compute.precision, run.settings.seed, split_name == "test"
    device, trust = side.settings.device, side.settings.trust
    source = Source(folder, "best", device, trust, precision, torch.get_num_threads())
    local = nullcontext(LocalDecoder(run.model, run.compute))
    with fresh_decoder(source) if final else local as decoder:
        scored, check = scored_again(
            decoder, split, run.tokenizer, score, precision, complete=final, seed=seed
        )
    checks = [check]
    if split_name == "val":
        near = None not in (found, reported) and math.isclose(
            found or 0, reported or 0, rel_tol=20 * BOUND[precision]
        )
        words = f"{reported} bits per byte in the summary, {found} scored again"
        checks.append(outcome("reported", None if near else words))
    made = Certificate(
        made_by="verify", complete=final, checks=checks, score=scored,
        bound_to=bound_to(run.settings, dataset, run.folder, run.model, None),
        parameters=parameters(run.model)["total"], state=buffer_values(run.model),
    )  # fmt: skip
    if split_name == "val":
        made.write(folder)
    return made, found
