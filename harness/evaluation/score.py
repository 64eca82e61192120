"""Exact scores: each token of a split after the first once, in nats, and the bytes they stand for.

B batch, T time, V vocabulary, N tokens of a split.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.compute.device import Compute
from harness.compute.modes import eval_mode
from harness.data.encoded import Split
from harness.evaluation import batch_norm
from harness.evaluation.nats import Measure, nats_N, score_nats
from harness.evaluation.own_metrics import NONE, OwnMetrics
from zoo.language_model import LanguageModel
from zoo_tokenizers import Tokenizer

STREAM_CHUNK = 4096  # tokens of a streaming pass processed at a time; no effect on the score


@dataclass(frozen=True)
class Score:
    """An exact evaluation.

    stride: of the window, in tokens; None: a streaming pass. unknown: characters that the
    vocabulary lacks; `nats` includes the cost of sending them separately. token_nats: (tokens,).
    own: the user's own figures.
    """

    nats: float
    tokens: int
    bytes: int
    lossless: bool
    stride: int | None
    unknown: int
    token_nats: NDArray[np.floating] = field(repr=False, compare=False)
    own: dict[str, float | None] = field(default_factory=dict)

    @property
    def nats_per_token(self) -> float:
        return self.nats / self.tokens

    @property
    def bits_per_byte(self) -> float | None:
        """Comparable across tokenizers. None for a lossy one, which drops text without a cost."""
        return self.nats / math.log(2) / self.bytes if self.lossless else None

    @property
    def perplexity(self) -> float | None:
        return math.exp(self.nats_per_token) if self.nats_per_token < 700 else None

    def metrics(self, prefix: str = "") -> dict[str, Any]:
        """As in a row of metrics.jsonl."""
        names = ("nats_per_token", "bits_per_byte", "perplexity")
        found = {name: getattr(self, name) for name in names} | self.own
        return {prefix + name: value for name, value in found.items()}

    def summary(self) -> dict[str, Any]:
        """As in summary.json."""
        names = ("nats_per_token", "bits_per_byte", "perplexity")
        names += ("tokens", "bytes", "stride", "unknown")
        own = {"own": self.own} if self.own else {}
        return {name: getattr(self, name) for name in names} | own


def score_split(
    model: LanguageModel,
    split: Split,
    tokenizer: Tokenizer,
    compute: Compute,
    stride: int | None = None,
    batch_size: int = 64,
    on_batch: Callable[[int], None] = lambda tokens: None,
    *,
    strided: bool = False,
    batch_statistics: bool = False,
    own: OwnMetrics = NONE,
) -> Score:
    """Score every token of a split after its first; the arguments are those of `token_nats`.
    own: figures that are computed on the way."""
    found = token_nats(
        model, np.asarray(split.ids), compute, stride, batch_size, on_batch,
        strided=strided, batch_statistics=batch_statistics,
        measure=own.measure if own else nats_N,
    )  # fmt: skip
    # Contiguous, so that the sum is the same bit for bit.
    nats = np.ascontiguousarray(found[:, 0]) if own else found
    patch_size = model.patch_size if strided else None
    resolved = resolve_stride(model.block_size, stride, patch_size) if model.block_size else None
    score = score_of(nats, split, tokenizer, resolved)
    return replace(score, own=own.figures(found[:, 1:])) if own else score


def score_of(
    nats: NDArray[np.floating], split: Split, tokenizer: Tokenizer, stride: int | None
) -> Score:
    """The score from the nats of each token after the first."""
    return Score(
        nats=float(nats.sum(dtype=np.float64)) + split.unknown_nats,
        tokens=len(nats),
        # Nothing predicts the first token, so its bytes do not count.
        bytes=split.bytes - int(tokenizer.token_bytes[int(split.ids[0])]),
        lossless=tokenizer.lossless,
        stride=stride,
        unknown=sum(split.unknown.values()),
        token_nats=nats,
    )


def token_nats(
    model: LanguageModel,
    ids: NDArray[np.integer],
    compute: Compute,
    stride: int | None = None,
    batch_size: int = 64,
    on_batch: Callable[[int], None] = lambda tokens: None,
    *,
    strided: bool = False,
    batch_statistics: bool = False,
    measure: Measure = nats_N,
) -> NDArray[np.floating]:
    """The nats of each token after the first, (N - 1,), or the values of another `measure`,
    (N - 1, …). Leaves the model as it was.

    stride: of the window of a bounded model, in tokens; None: half of its block_size.
    on_batch: called with the number of tokens just scored; may raise to stop.
    strided: strided inference (Yu et al. 2023, arXiv 2305.07185, section 2.3.3): two passes half a
    patch apart, each token from the pass in which it is in the first half of its patch. Raises
    ValueError for a model without patches.
    batch_statistics: normalize by the batch's statistics, which is not causal.
    """
    if strided and model.patch_size is None:
        raise ValueError("strided inference is for models with patches, and this one has none")
    patch_size = model.patch_size if strided else None
    if model.block_size is not None:
        stride = resolve_stride(model.block_size, stride, patch_size)

    def one_pass(ids: NDArray[np.integer]) -> NDArray[np.floating]:
        if model.block_size is None or stride is None:
            pieces = stream(model, ids, compute, on_batch, measure)
        else:
            if patch_size is not None:
                ids = _pad(ids, model.block_size, stride)
            pieces = _slide(model, ids, compute, stride, batch_size, on_batch, measure)
        return np.concatenate(list(pieces))

    with scoring(model, compute, batch_statistics):
        return one_pass(ids) if patch_size is None else _two_passes(one_pass, ids, patch_size)


@contextmanager
def scoring(
    model: LanguageModel, compute: Compute, batch_statistics: bool = False
) -> Iterator[None]:
    """Inside, the model computes as in a score: evaluation mode, no gradients, its precision."""
    with (
        eval_mode(model),
        torch.inference_mode(),
        compute.autocast(),
        batch_norm.batch_statistics(model, batch_statistics),
    ):
        yield


def resolve_stride(block_size: int, stride: int | None, patch_size: int | None = None) -> int:
    """The stride, by default half a window rounded down to whole patches.

    Raises ValueError for one that would leave tokens out or cut a patch.
    """
    patch_size = patch_size or 1
    if stride is None:
        return max(1, block_size // 2 // patch_size) * patch_size
    if not 1 <= stride <= block_size:
        raise ValueError(f"stride={stride} must lie between 1 and block_size={block_size}")
    if stride % patch_size:
        raise ValueError(f"stride={stride} must be a multiple of the patch of {patch_size} tokens")
    return stride


def _two_passes(
    one_pass: Callable[[NDArray[np.integer]], NDArray[np.floating]],
    ids: NDArray[np.integer],
    patch_size: int,
) -> NDArray[np.floating]:
    """Strided inference: one pass from the start of the text, one from half a patch on. The first
    patch is complete only in the first pass."""
    half = (patch_size + 1) // 2
    targets = np.arange(1, len(ids))
    late = targets[(targets % patch_size >= half) & (targets >= patch_size)]
    nats = one_pass(ids)[: len(targets)]
    if len(late):
        nats[late - 1] = one_pass(ids[half:])[late - half - 1]
    return nats


def _pad(ids: NDArray[np.integer], block_size: int, stride: int) -> NDArray[np.integer]:
    """Pad so that the last window, too, moves by a whole stride and its patches align with the
    others'. A causal model's scores do not depend on the padding."""
    beyond = max(0, len(ids) - 1 - block_size)
    return np.pad(ids, (0, -beyond % stride))


def windows(targets: int, block_size: int, stride: int) -> list[tuple[int, int]]:
    """(start, new) of each window over `targets` predictions: it reads block_size tokens from
    `start`, or all, and scores its last `new`. Each prediction is scored once."""
    if targets <= block_size:
        return [(0, targets)]
    ends = [*range(block_size, targets, stride), targets]
    starts = [end - block_size for end in ends]
    return [(start, end - last) for start, end, last in zip(starts, ends, [0, *ends], strict=False)]


def _slide(
    model: LanguageModel,
    ids: NDArray[np.integer],
    compute: Compute,
    stride: int,
    batch_size: int,
    on_batch: Callable[[int], None],
    measure: Measure,
) -> Iterator[NDArray[np.floating]]:
    """A bounded model: batches of overlapping windows."""
    targets = len(ids) - 1
    length = min(model.block_size or targets, targets)
    plan = windows(targets, length, stride)
    for first in range(0, len(plan), batch_size):
        batch = plan[first : first + batch_size]
        index = np.array([start for start, _ in batch])[:, None] + np.arange(length + 1)
        window = torch.from_numpy(ids[index].astype(np.int64)).to(compute.device)
        most = max(new for _, new in batch)  # the rest is context and needs no logits
        found_BT = score_windows(model, window, most, measure)
        for row, (_, new) in zip(found_BT.cpu().numpy(), batch, strict=True):
            yield row[most - new :].copy()  # a view would keep the whole batch
        on_batch(sum(new for _, new in batch))


def score_windows(
    model: LanguageModel, window_BT: Tensor, most: int, measure: Measure = nats_N
) -> Tensor:
    """The last `most` predictions of each window of block_size tokens and a target."""
    features_BTC = model(window_BT[:, :-1], return_features=True)[:, -most:]
    return score_nats(model, features_BTC, window_BT[:, -most:], measure)


def stream(
    model: LanguageModel,
    ids: NDArray[np.integer],
    compute: Compute,
    on_batch: Callable[[int], None] = lambda tokens: None,
    measure: Measure = nats_N,
) -> Iterator[NDArray[np.floating]]:
    """An unbounded model: one pass over the whole split, with a cache."""
    cache = model.init_cache(1)
    for start in range(0, len(ids) - 1, STREAM_CHUNK):
        chunk = ids[start : start + STREAM_CHUNK + 1].astype(np.int64)
        row = torch.from_numpy(chunk)[None].to(compute.device)
        features_BTC = model(row[:, :-1], cache, return_features=True)
        found_BT = score_nats(model, features_BTC, row[:, 1:], measure)
        yield found_BT[0].cpu().numpy()
        on_batch(row.shape[1] - 1)
