"""The exact score of a finished run, on a split or on other texts."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

from tqdm import tqdm

from harness.common.errors import RunFailure, UsageError
from harness.common.rows import strict_json
from harness.common.text import visible_line
from harness.compute.device import make_deterministic
from harness.data.alone import LoneText, encode_alone
from harness.data.assets import Assets
from harness.data.corpus import Corpus
from harness.data.dataset import Dataset
from harness.data.encoded import Split
from harness.evaluation.checkpoints import average_last, averaged_count, score_all
from harness.evaluation.score import Score, by_place, resolve_stride, score_split
from harness.evaluation.token_losses import write_tokens
from harness.runs import texts
from harness.runs.load import Run, load_run
from harness.runs.summary import TextScore, texts_of

Calibrate = Callable[[Run, Dataset, str, dict[str, Any]], dict[str, Any]]
"""From a run, its data, a split's name and the arguments of `token_nats` to the reported values."""
KEPT = TextScore.model_fields.keys()
HEADS = {
    "text": "text",
    "tokens": "tokens",
    "bytes": "bytes",
    "unknown": "unknown",
    "nats_per_token": "nats/token",
    "bits_per_byte": "bits/byte",
}


def evaluate_run(arguments: argparse.Namespace, calibrate: Calibrate) -> int:
    """Print the score on stdout, as a table or as JSON. arguments: of harness.evaluate; calibrate:
    called for --calibration."""
    count = averaged_count(arguments.average)
    which = "latest" if count or arguments.all_checkpoints else arguments.checkpoint
    run = load_run(
        arguments.run, which, arguments.device, arguments.trust, arguments.precision,
        arguments.checkpoint_dir, arguments.context,
    )  # fmt: skip
    make_deterministic()  # as in training, so that the score is the same
    options = _options(run, arguments)
    result: dict[str, Any] = {"run": str(run.folder.path)}
    if arguments.text:
        parts = encode_alone(arguments.text, "--text ", run.tokenizer, Assets.own())
        own = {run.corpus_digest, *texts_of(run.folder.path)}
        for name, part in parts.items():
            for note in part.notes(name, own):
                print(f"note: {visible_line(note)}", file=sys.stderr)
        scores = _scores(run, parts, options, arguments)
        result |= {"step": run.step, "stride": scores[next(iter(scores))].stride}
        result["texts"] = [
            {"text": name, "file": arguments.text[name], "sha256": parts[name].span.sha256}
            | score.summary()
            | _by_position(score)
            for name, score in scores.items()
        ]
        if _as_ranked(arguments):  # no rank for who was trained on it
            _keep(run, [each for each in result["texts"] if each["sha256"] not in own])
    else:
        split = arguments.split
        dataset = run.dataset(arguments.data_path)
        for name in ["val"] * arguments.calibration + [split]:
            if getattr(dataset, name) is None:
                raise UsageError(f"data.split={run.settings.data['split']} leaves no {name} split")
        result |= {"split": split, "step": run.step}
        if arguments.all_checkpoints:
            return _print_all(run, getattr(dataset, split), options, arguments)
        if count is not None:
            average_last(run, count, dataset)
            result["average"] = arguments.average
        if arguments.calibration:
            with _progress(None, options):
                result |= calibrate(run, dataset, split, options)
        else:
            parts = {split: LoneText.part_of(dataset, split)}
            score = _scores(run, parts, options, arguments)[split]
            result |= score.summary() | _by_position(score)
    if arguments.context is not None:
        result["context"] = arguments.context
    result |= {"strided_inference": options["strided"], "precision": run.compute.precision}
    if arguments.json:
        print(strict_json(result))
    else:
        _print_table(result)
    return 0


def _as_ranked(arguments: argparse.Namespace) -> bool:
    """Whether nothing is other than in the run's own test score."""
    other = (arguments.stride, arguments.context, arguments.average, arguments.precision)
    plain = arguments.checkpoint == "best" and not arguments.strided_inference
    return plain and not any(each is not None for each in other)


def _keep(run: Run, found: list[dict[str, Any]]) -> None:
    """For harness.compare, in the run's folder, if that can be written."""
    scores = {each["text"]: TextScore.of({k: each[k] for k in KEPT if k in each}) for each in found}
    try:
        texts.keep(run.folder.path, run.folder.checkpoints, scores)
    except RunFailure as error:
        print(f"note: harness.compare will not know these scores: {error}", file=sys.stderr)


def _options(run: Run, arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `token_nats`. Raises UsageError for what does not fit the model."""
    stride = run.settings.eval.stride if arguments.stride is None else arguments.stride
    if run.model.block_size is None and arguments.stride is not None:
        raise UsageError(
            f"--stride has no meaning for {run.settings.names.model}: it is scored in one "
            "streaming pass"
        )
    strided = arguments.strided_inference
    for option in ("strided_inference", "calibration"):
        if not getattr(arguments, option):
            continue
        if several := run.settings.build("data", Corpus).several:
            name = f"--{option.replace('_', '-')}"
            raise UsageError(f"{name} is for one long text, and this run's data are {several}")
    if strided and run.model.patch_size is None:
        raise UsageError(
            f"--strided-inference has no meaning for {run.settings.names.model}: it has no patches"
        )
    try:
        if run.model.block_size is not None:
            resolve_stride(run.model.block_size, stride, run.model.patch_size if strided else None)
    except ValueError as error:
        raise UsageError(f"--{error}") from error
    return {
        "stride": stride,
        "batch_size": arguments.batch_size or run.settings.eval.batch_size,
        "strided": strided,
        "batch_statistics": run.settings.train.batch_norm == "batch",
    }


def _scores(
    run: Run, parts: Mapping[str, LoneText], options: dict[str, Any], arguments: argparse.Namespace
) -> dict[str, Score]:
    """The score of each part; the loss of every token in a file, if that is asked for."""
    passes = 2 if options["strided"] else 1
    total = sum(len(part.split.ids) - 1 for part in parts.values()) * passes
    with _progress(total, options):
        scores = {
            name: score_split(run.model, part.split, run.tokenizer, run.compute, **options)
            for name, part in parts.items()
        }
    if arguments.tokens is not None:
        scored = {name: (part, scores[name]) for name, part in parts.items()}
        write_tokens(arguments.tokens, scored, run.tokenizer)
    return scores


def _print_all(
    run: Run, split: Split, options: dict[str, Any], arguments: argparse.Namespace
) -> int:
    """The score of each checkpoint, as a table or as a JSON object a line. Raises RunFailure if
    none is whole."""
    with _progress(None, options):
        scores = dict(score_all(run, split, options))
    if not scores:
        raise RunFailure(f"{run.folder.path}: no checkpoint is whole")
    if arguments.json:
        for step, score in scores.items():
            print(strict_json({"split": arguments.split, "step": step, **score.summary()}))
        return 0
    best = min(scores, key=lambda step: (math.isnan(scores[step].nats), scores[step].nats))
    print(f"    step  nats/token  bits/byte  ({arguments.split})")
    for step, score in scores.items():
        bits = "–" if score.bits_per_byte is None else f"{score.bits_per_byte:.4f}"
        least = "  lowest" if step == best and len(scores) > 1 else ""
        print(f"{step:>8}  {score.nats_per_token:>10.4f}  {bits:>9}{least}")
    if run.settings.checkpoint.keep == "latest":
        print("only the newest are there; checkpoint.keep=all, log or [STEPS] keeps more")
    return 0


def _by_position(score: Score) -> dict[str, Any]:
    """The loss by the place in a document; nothing of one long text."""
    documents = score.documents
    return {} if documents is None else {"nats_by_position": by_place(score.token_nats, documents)}


def _progress(total: int | None, options: dict[str, Any]) -> tqdm[Any]:
    """A bar that the scoring moves. total: tokens, if that is known."""
    bar = tqdm(total=total, unit=" tokens", unit_scale=True, disable=None)
    options["on_batch"] = bar.update
    return bar


def _print_table(result: dict[str, Any]) -> None:
    if by_position := result.get("nats_by_position"):
        shown = "  ".join(f"{place}: {nats:.4f}" for place, nats in by_position.items())
        result = result | {"nats_by_position": shown}
    short = {name: value for name, value in result.items() if not isinstance(value, dict | list)}
    width = max(map(len, short))
    for name, value in short.items():  # the page has the rest
        print(f"{name:{width}} {_shown(value)}")
    if "texts" not in result:
        return
    each = result["texts"]
    if isinstance(each, dict):  # of a mix
        each = [{"text": name} | text for name, text in each.items()]
    rows = [[_shown(text[name]) for name in HEADS] for text in each]
    table = [list(HEADS.values()), *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    print()
    for first, *others in table:
        cells = (f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True))
        print("  ".join([f"{first:{widths[0]}}", *cells]))


def _shown(value: Any) -> str:
    """A value of the table, at five digits; a pair is before and after temperature scaling."""
    if isinstance(value, tuple):
        return " → ".join(map(_shown, value))
    if isinstance(value, float):
        return f"{value:.5g}"
    return "–" if value is None else visible_line(str(value))
