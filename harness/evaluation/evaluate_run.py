"""The exact score of a finished run."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

from harness.common.errors import RunFailure, UsageError
from harness.common.rows import strict_json
from harness.common.text import visible_line
from harness.compute.device import make_deterministic
from harness.data.dataset import Dataset
from harness.data.encoded import Split
from harness.evaluation.checkpoints import average_last, averaged_count, score_all
from harness.evaluation.score import by_place, resolve_stride, score_split
from harness.runs.load import Run, load_run

Calibrate = Callable[[Run, Dataset, str, dict[str, Any]], dict[str, Any]]
"""From a run, its data, a split's name and the arguments of `token_nats` to the reported values."""


def evaluate_run(arguments: argparse.Namespace, calibrate: Calibrate) -> int:
    """Print the score on stdout, as a table or as JSON. arguments: of harness.evaluate; calibrate:
    called for --calibration."""
    count = averaged_count(arguments.average)
    several = arguments.all_checkpoints or count is not None
    which = "latest" if several else arguments.checkpoint
    run = load_run(
        arguments.run, which, arguments.device, arguments.trust, arguments.precision,
        arguments.checkpoint_dir, arguments.context,
    )  # fmt: skip
    make_deterministic()  # as in training, so that the score is the same
    stride = run.settings.eval.stride if arguments.stride is None else arguments.stride
    batch_size = arguments.batch_size or run.settings.eval.batch_size
    if run.model.block_size is None and arguments.stride is not None:
        raise UsageError(
            f"--stride has no meaning for {run.settings.names.model}: it is scored in one "
            "streaming pass"
        )
    strided = arguments.strided_inference
    if strided and run.model.patch_size is None:
        raise UsageError(
            f"--strided-inference has no meaning for {run.settings.names.model}: it has no patches"
        )
    try:
        if run.model.block_size is not None:
            resolve_stride(run.model.block_size, stride, run.model.patch_size if strided else None)
    except ValueError as error:
        raise UsageError(f"--{error}") from error
    dataset = run.dataset(arguments.data_path)
    for name in ["val"] * arguments.calibration + [arguments.split]:
        if getattr(dataset, name) is None:
            raise UsageError(f"data.split={run.settings.data['split']} leaves no {name} split")
    split = getattr(dataset, arguments.split)
    for option in ("strided_inference", "calibration"):
        if getattr(arguments, option) and split.documents is not None:
            name = f"--{option.replace('_', '-')}"
            raise UsageError(f"{name} is for one long text, and this run's data are documents")
    if count is not None:
        average_last(run, count, dataset)
    result = {"run": str(run.folder.path), "split": arguments.split, "step": run.step}
    if count is not None:
        result["average"] = arguments.average
    if arguments.context is not None:
        result["context"] = arguments.context
    passes = None if arguments.calibration or arguments.all_checkpoints else 2 if strided else 1
    total = passes and (len(split.ids) - 1) * passes
    with tqdm(total=total, unit=" tokens", unit_scale=True, disable=None) as bar:
        options: dict[str, Any] = {
            "stride": stride,
            "batch_size": batch_size,
            "on_batch": bar.update,
            "strided": strided,
            "batch_statistics": run.settings.train.batch_norm == "batch",
        }
        if arguments.all_checkpoints:
            return _print_all(run, arguments, split, options)
        if arguments.calibration:
            result |= calibrate(run, dataset, arguments.split, options)
        else:
            score = score_split(run.model, split, run.tokenizer, run.compute, **options)
            result |= score.summary()
            if score.documents is not None:
                by_position = by_place(score.token_nats, score.documents)
                shown = "  ".join(f"{place}: {nats:.4f}" for place, nats in by_position.items())
                result["nats_by_position"] = by_position if arguments.json else shown
    result |= {"strided_inference": strided, "precision": run.compute.precision}
    if arguments.json:
        print(strict_json(result))
    else:
        short = {name: value for name, value in result.items() if not isinstance(value, dict)}
        width = max(map(len, short))
        for name, value in short.items():  # the page has the rest
            print(f"{name:{width}} {_shown(value)}")
    return 0


def _print_all(
    run: Run, arguments: argparse.Namespace, split: Split, options: dict[str, Any]
) -> int:
    """The score of each checkpoint, as a table or as a JSON object a line. Raises RunFailure if
    none is whole."""
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


def _shown(value: Any) -> str:
    """A value of the table; a pair is before and after temperature scaling."""
    if isinstance(value, tuple):
        return " → ".join(map(_shown, value))
    return "–" if value is None else visible_line(str(value))
