"""The exact score of a finished run."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

from harness.common.errors import UsageError
from harness.common.rows import strict_json
from harness.common.text import visible_line
from harness.compute.device import make_deterministic
from harness.data.dataset import Dataset
from harness.evaluation.score import by_place, resolve_stride, score_split
from harness.runs.load import Run, load_run

Calibrate = Callable[[Run, Dataset, str, dict[str, Any]], dict[str, Any]]
"""From a run, its data, a split's name and the arguments of `token_nats` to the reported values."""


def evaluate_run(arguments: argparse.Namespace, calibrate: Calibrate) -> int:
    """Print the score on stdout, as a table or as JSON. arguments: of harness.evaluate; calibrate:
    called for --calibration."""
    run = load_run(
        arguments.run, arguments.checkpoint, arguments.device, arguments.trust, arguments.precision,
        arguments.checkpoint_dir,
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
    result = {"run": str(run.folder.path), "split": arguments.split, "step": run.step}
    passes = None if arguments.calibration else 2 if strided else 1
    total = passes and (len(split.ids) - 1) * passes
    with tqdm(total=total, unit=" tokens", unit_scale=True, disable=None) as bar:
        options: dict[str, Any] = {
            "stride": stride,
            "batch_size": batch_size,
            "on_batch": bar.update,
            "strided": strided,
            "batch_statistics": run.settings.train.batch_norm == "batch",
        }
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


def _shown(value: Any) -> str:
    """A value of the table; a pair is before and after temperature scaling."""
    if isinstance(value, tuple):
        return " → ".join(map(_shown, value))
    return "–" if value is None else visible_line(str(value))
