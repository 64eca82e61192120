"""The calls that a score and a training make, each position's logits told by a fingerprint.

B batch, T time, C channels, V vocabulary, N positions in one chunk.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.compute.device import Compute
from harness.data.encoded import Documents
from harness.evaluation import batch_norm
from harness.evaluation.nats import Measure, score_nats
from harness.evaluation.score import (
    STREAM_CHUNK,
    resolve_stride,
    score_windows,
    scoring,
    stream,
    windows,
)
from zoo.language_model import LanguageModel

ROUNDING = {"fp32": 1e-5, "bf16": 1e-2, "fp16": 2e-3}
_ODD = 0x9E3779B97F4A7C15 - 2**64  # 2^64 over the golden ratio, as int64


def fingerprint_N(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """A hash of each position's logits, int64 (N,): equal for equal bits. The logits of a whole
    batch would take too much memory."""
    if logits_NV.dim() != 2 or len(logits_NV) != len(targets_N):
        raise ValueError(f"the head gives logits of shape {tuple(logits_NV.shape)}")
    exact_NV = logits_NV if logits_NV.dtype.itemsize >= 4 else logits_NV.float()
    exact_NV = exact_NV + 0.0  # one zero, not two
    bits_NV = exact_NV.contiguous().view(
        torch.int64 if exact_NV.dtype.itemsize == 8 else torch.int32
    )
    places_V = torch.arange(1, bits_NV.shape[1] + 1, device=bits_NV.device) * _ODD | 1
    return (bits_NV.long() * places_V).sum(-1)


def logits_NV(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """The logits themselves, (N, V)."""
    return logits_NV.float() if logits_NV.dtype.itemsize < 4 else logits_NV


@dataclass(frozen=True)
class Call:
    """A way to call a model on texts of one shape. what: as a sentence names it.

    compute: from the model and ids (rows, time) to the values of a `Measure`, (rows, time, …).
    """

    what: str
    model: LanguageModel
    device: Compute
    rows: int
    time: int
    values: Callable[[LanguageModel, Compute, Tensor, Measure], Tensor]

    def run(self, ids_BT: Tensor, measure: Measure) -> Tensor:
        return self.values(self.model, self.device, ids_BT, measure)

    def fingerprints(self, ids_BT: Tensor) -> Tensor:
        """(B, T)"""
        return self.run(ids_BT, fingerprint_N)

    @property
    def rounding(self) -> float:
        """The largest error of logits, relative to the largest, that another order explains."""
        return ROUNDING[self.device.precision]

    def in_double(self) -> Call:
        """The same call of a copy of the model in float64."""
        exact = copy.deepcopy(self.model).double()
        return replace(self, model=exact, device=replace(self.device, precision="fp32"))


def scoring_calls(
    model: LanguageModel,
    compute: Compute,
    targets: int,
    batch_size: int,
    stride: int | None,
    batch_statistics: bool = False,
    documents: Documents | None = None,
) -> list[Call]:
    """As a score of `targets` predictions calls the model: with a batch of windows, and with the
    last, smaller one; or in a stream, whose first and last chunks these are. Of documents with a
    batch as long as the longest, which is streamed alone if it is too long for that."""
    if documents is not None:
        targets = int(documents.lengths.max())
    in_batches = model.block_size is not None or (documents and targets <= STREAM_CHUNK)
    if in_batches:
        time = min(model.block_size or targets, targets)
        if documents is not None:
            count, what = len(documents), "documents"
        else:
            stride = resolve_stride(model.block_size or time, stride)
            count, what = len(windows(targets, time, stride)), "windows"
        sizes = {min(batch_size, count): None, count % batch_size: None}  # each once, in order
        shapes = [(rows, f"scoring {rows} {what} of {time} tokens") for rows in sizes if rows]
    else:
        last = (targets - 1) % STREAM_CHUNK + 1
        time = targets if targets <= STREAM_CHUNK else STREAM_CHUNK + last
        shapes = [(1, f"scoring a stream of {time} tokens")]

    def values(model: LanguageModel, compute: Compute, ids_BT: Tensor, measure: Measure) -> Tensor:
        with_target_BT = F.pad(ids_BT, (0, 1))
        with scoring(model, compute, batch_statistics):
            if in_batches:
                return score_windows(model, with_target_BT.to(compute.device), time, measure).cpu()
            pieces = stream(model, with_target_BT[0].numpy(), compute, measure=measure)
            return torch.from_numpy(np.concatenate(list(pieces)))[None]

    return [Call(what, model, compute, rows, time, values) for rows, what in shapes]


def training_call(model: LanguageModel, compute: Compute, rows: int, time: int) -> Call:
    """As a training calls the model, dropout included; but batch normalization, which mixes the
    positions of a batch while it trains, as in evaluation. Seeds the generators."""

    def values(model: LanguageModel, compute: Compute, ids_BT: Tensor, measure: Measure) -> Tensor:
        compute.seed(0)
        was_training = model.training
        model.train()
        batch_norm.freeze(model)
        try:
            ids_BT = ids_BT.to(compute.device)
            with torch.no_grad(), compute.autocast():
                return score_nats(model, model(ids_BT, return_features=True), ids_BT, measure).cpu()
        finally:
            model.train(was_training)

    return Call(
        f"training on {rows} sequences of {time} tokens", model, compute, rows, time, values
    )


def plain_call(model: LanguageModel, rows: int, time: int) -> Call:
    """One call without a cache, in the weights' own precision."""

    def values(model: LanguageModel, compute: Compute, ids_BT: Tensor, measure: Measure) -> Tensor:
        with torch.no_grad():
            return score_nats(model, model(ids_BT, return_features=True), ids_BT, measure)

    cpu = Compute(torch.device("cpu"), "fp32")
    return Call(f"{rows} texts of {time} tokens", model, cpu, rows, time, values)
