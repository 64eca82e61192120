"""The loss of each target in nats, a chunk of logits at a time: with a vocabulary of 50,000 those
of a whole batch would take more memory than all else together.

B batch, T time, C channels, V vocabulary, N positions in one chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.data.batches import IGNORED
from zoo.language_model import LanguageModel

CHUNK_LOGITS = 2**22  # logits held at a time: 16 MiB in fp32, also the fastest on a CPU

Measure = Callable[[Tensor, Tensor], Tensor]
"""Values of each position, (N, …), from its logits (N, V) and target (N,)."""


def nats_N(logits_NV: Tensor, targets_N: Tensor, reduction: str = "none") -> Tensor:
    """-ln p(target) of every position in at least fp32, (N,); 0 for IGNORED targets. With
    reduction="sum" their sum, ()."""
    logits_NV = logits_NV.float() if logits_NV.dtype.itemsize < 4 else logits_NV
    return F.cross_entropy(logits_NV, targets_N, reduction=reduction, ignore_index=IGNORED)


def with_hits(measure: Measure) -> Measure:
    """The values of a measure, and behind them whether the target is the likeliest token, 1 or 0:
    (N, values + 1)."""

    def both(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
        values = measure(logits_NV, targets_N)
        hits_N = (logits_NV.argmax(-1) == targets_N).to(values)
        return torch.cat([values.view(len(hits_N), -1), hits_N[:, None]], dim=1)

    return both


def score_nats(
    model: LanguageModel, features_BTC: Tensor, targets_BT: Tensor, measure: Measure = nats_N
) -> Tensor:
    """The nats of every target, (B, T), or the values of another `measure`, (B, T, …)."""
    chunks = zip(*in_chunks(model, features_BTC, targets_BT), strict=True)
    found = torch.cat([measure(model.head(chunk), targets) for chunk, targets in chunks])
    return found.unflatten(0, targets_BT.shape)


def in_chunks(
    model: LanguageModel, features_BTC: Tensor, targets_BT: Tensor
) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Features and targets of all positions, in chunks of at most CHUNK_LOGITS logits."""
    rows = max(1, CHUNK_LOGITS // model.vocab_size)
    features_NC, targets_N = features_BTC.flatten(0, 1), targets_BT.flatten()
    if len(targets_N) <= rows:  # splitting takes time, also in the backward pass
        return [features_NC], [targets_N]
    return features_NC.split(rows), targets_N.split(rows)
