"""The score that compares.

A score covers a whole split: each token after the first once, in nats, and all the bytes those
tokens stand for. B batch, T time, V vocabulary, N tokens of a split.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.compute.device import Compute
from harness.data.encoded import Split
from harness.evaluation import batch_norm
from harness.evaluation.nats import Measure, nats_N, score_nats
from zoo.language_model import LanguageModel
from zoo_tokenizers import Tokenizer

STREAM_CHUNK = 4096  # tokens a streaming pass takes at a time; no effect on the score


@dataclass(frozen=True)
class Score:
    """An exact evaluation. stride: how far the window moved, in tokens; None: a streaming pass."""

    nats: float
    tokens: int
    bytes: int
    lossless: bool
    stride: int | None
    unknown: int
    """Characters of the split that the vocabulary lacks; `nats` pays for sending them beside."""
    token_nats: NDArray[np.floating] = field(repr=False, compare=False)
    """(tokens,): of each token by itself."""

    @property
    def nats_per_token(self) -> float:
        return self.nats / self.tokens

    @property
    def bits_per_byte(self) -> float | None:
        """The number that compares tokenizers. None for a lossy one: it never had to predict what
        it dropped."""
        return self.nats / math.log(2) / self.bytes if self.lossless else None

    @property
    def perplexity(self) -> float | None:
        return math.exp(self.nats_per_token) if self.nats_per_token < 700 else None

    def summary(self) -> dict[str, Any]:
        """As summary.json has it."""
        return {
            "nats_per_token": self.nats_per_token,
            "bits_per_byte": self.bits_per_byte,
            "perplexity": self.perplexity,
            **{name: getattr(self, name) for name in ("tokens", "bytes", "stride", "unknown")},
        }


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
) -> Score:
    """Score every token of a split after its first.

    stride: how far the window of a bounded model moves; None: half of its block_size.
    on_batch: told how many more tokens were scored; may raise to stop.
    strided: by strided inference, see `token_nats`.
    batch_statistics: let batch normalization use the batch at hand, which is not causal.
    """
    patch_size = model.patch_size if strided else None
    nats = token_nats(
        model,
        np.asarray(split.ids),
        compute,
        stride,
        batch_size,
        on_batch,
        strided=strided,
        batch_statistics=batch_statistics,
    )
    resolved = resolve_stride(model.block_size, stride, patch_size) if model.block_size else None
    return score_of(nats, split, tokenizer, resolved)


def score_of(
    nats: NDArray[np.floating], split: Split, tokenizer: Tokenizer, stride: int | None
) -> Score:
    """The score of a split each of whose tokens after the first costs so many nats."""
    return Score(
        nats=float(nats.sum(dtype=np.float64)) + split.unknown_nats,
        tokens=len(nats),
        # The first token is context: nothing predicts it, so its bytes are not paid for.
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
    """(N - 1,): the nats of each token after the first, in order; or what else `measure` finds of
    it, (N - 1, …).

    Leaves the model as it was: evaluation never disturbs training.
    strided: in two passes half a patch apart, each token taken from the one in which it lies in the
    first half of its patch (strided inference: Yu et al. 2023, arXiv 2305.07185, section 2.3.3).
    Twice the cost. Raises ValueError for a model without patches.
    """
    if strided and model.patch_size is None:
        raise ValueError("strided inference is for models with patches, and this one has none")
    patch_size = model.patch_size if strided else None
    if model.block_size is not None:
        stride = resolve_stride(model.block_size, stride, patch_size)

    def one_pass(ids: NDArray[np.integer]) -> NDArray[np.floating]:
        if model.block_size is None or stride is None:
            pieces = _stream(model, ids, compute, on_batch, measure)
        else:
            if patch_size is not None:
                ids = _pad(ids, model.block_size, stride)
            pieces = _slide(model, ids, compute, stride, batch_size, on_batch, measure)
        return np.concatenate(list(pieces))

    was_training = model.training
    model.eval()
    try:
        with (
            torch.inference_mode(),
            compute.autocast(),
            batch_norm.batch_statistics(model, batch_statistics),
        ):
            return one_pass(ids) if patch_size is None else _two_passes(one_pass, ids, patch_size)
    finally:
        model.train(was_training)


def resolve_stride(block_size: int, stride: int | None, patch_size: int | None = None) -> int:
    """Half a window unless given, or as much of it as fills patches of the given size.

    Raises ValueError for a stride that would leave tokens out or cut a patch.
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
    """Strided inference: the text is scored from its start and from half a patch on, and each token
    is taken from where it lies in the first half of its patch.

    The first patch is taken from its only complete one: nothing before it could fill it otherwise.
    """
    half = (patch_size + 1) // 2
    targets = np.arange(1, len(ids))
    late = targets[(targets % patch_size >= half) & (targets >= patch_size)]
    nats = one_pass(ids)[: len(targets)]
    if len(late):
        nats[late - 1] = one_pass(ids[half:])[late - half - 1]
    return nats


def _pad(ids: NDArray[np.integer], block_size: int, stride: int) -> NDArray[np.integer]:
    """So many ids more that the last window moves by a whole stride, too, and its patches lie where
    those of the others do. A causal model's scores of the text don't depend on what follows it."""
    beyond = max(0, len(ids) - 1 - block_size)
    return np.pad(ids, (0, -beyond % stride))


def windows(targets: int, block_size: int, stride: int) -> list[tuple[int, int]]:
    """(start, new) of each window over `targets` predictions: it reads up to block_size tokens from
    `start` and scores its last `new`. All are equally long; each prediction is scored once.
    """
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
    """A bounded model: overlapping windows, a batch of them at a time."""
    targets = len(ids) - 1
    length = min(model.block_size or targets, targets)
    plan = windows(targets, length, stride)
    for first in range(0, len(plan), batch_size):
        batch = plan[first : first + batch_size]
        index = np.array([start for start, _ in batch])[:, None] + np.arange(length + 1)
        window = torch.from_numpy(ids[index].astype(np.int64)).to(compute.device)
        most = max(new for _, new in batch)  # what only gives context needs no logits
        features_BTC = model(window[:, :-1], return_features=True)[:, -most:]
        found_BT = score_nats(model, features_BTC, window[:, -most:], measure)
        for row, (_, new) in zip(found_BT.cpu().numpy(), batch, strict=True):
            yield row[most - new :].copy()  # a view would keep the whole batch
        on_batch(sum(new for _, new in batch))


def _stream(
    model: LanguageModel,
    ids: NDArray[np.integer],
    compute: Compute,
    on_batch: Callable[[int], None],
    measure: Measure,
) -> Iterator[NDArray[np.floating]]:
    """An unbounded model: one pass over the whole split, its cache carried along."""
    cache = model.init_cache(1)
    for start in range(0, len(ids) - 1, STREAM_CHUNK):
        chunk = ids[start : start + STREAM_CHUNK + 1].astype(np.int64)
        row = torch.from_numpy(chunk)[None].to(compute.device)
        features_BTC = model(row[:, :-1], cache, return_features=True)
        found_BT = score_nats(model, features_BTC, row[:, 1:], measure)
        yield found_BT[0].cpu().numpy()
        on_batch(row.shape[1] - 1)
