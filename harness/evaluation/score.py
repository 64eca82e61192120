"""Exact scores: each token of a split after the first once, in nats, and the bytes they stand for.

One long text is predicted from all of it, as far as the model sees; a document from itself alone.
B batch, T time, V vocabulary, N tokens of a split.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.compute.device import Compute
from harness.compute.modes import eval_mode
from harness.data.encoded import Documents, Split
from harness.evaluation import batch_norm
from harness.evaluation.nats import Measure, nats_N, score_nats, with_hits
from harness.evaluation.own_metrics import NONE, OwnMetrics
from zoo.language_model import LanguageModel
from zoo_tokenizers import Tokenizer

MEANS = ("nats_per_token", "bits_per_byte", "perplexity")
STREAM_CHUNK = 4096  # tokens of a streaming pass processed at a time; no effect on the score


@dataclass(frozen=True)
class Score:
    """An exact evaluation.

    stride: of the window, in tokens; None: a streaming pass. unknown: characters that the
    vocabulary lacks; `nats` includes the cost of sending them separately. token_nats: (N - 1,), of
    every token after the first; `tokens` of them count. own: the user's own figures.
    documents: those of the split, whose end markers are tokens of no bytes; None for one text.
    hits: of examples of a task, (N - 1,): whether a token was the likeliest.
    share: of the split that was scored. texts: of a mix, the score of each by itself; `nats`,
    `tokens` and `bytes` are their sums, `token_nats` have a 0 for the first token of each.
    """

    nats: float
    tokens: int
    bytes: int
    lossless: bool
    stride: int | None
    unknown: int
    token_nats: NDArray[np.floating] = field(repr=False, compare=False)
    own: dict[str, float | None] = field(default_factory=dict)
    documents: Documents | None = field(default=None, repr=False, compare=False)
    hits: NDArray[np.bool_] | None = field(default=None, repr=False, compare=False)
    share: float = 1.0
    texts: Mapping[str, Score] = field(default_factory=dict)

    @property
    def nats_per_token(self) -> float:
        return self.nats / self.tokens

    @property
    def text_nats_per_token(self) -> float | None:
        """Without the end markers. None for one text, for documents that are nothing else, and for
        examples, whose end markers don't count."""
        documents = self.documents
        if documents is None or documents.task is not None or self.tokens == len(documents):
            return None
        at_markers = float(self.token_nats[documents.borders[1:] - 1].sum(dtype=np.float64))
        return (self.nats - at_markers) / (self.tokens - len(documents))

    @property
    def bits_per_byte(self) -> float | None:
        """Comparable across tokenizers. None for a lossy one, which drops text without a cost."""
        return self.nats / math.log(2) / self.bytes if self.lossless else None

    @property
    def perplexity(self) -> float | None:
        return math.exp(self.nats_per_token) if self.nats_per_token < 700 else None

    @property
    def accuracy(self) -> tuple[float, float | None] | None:
        """Of the answers of a task: the share that was the likeliest token, and its standard error
        over whole examples, None of a single one. None for other data."""
        if self.hits is None or self.documents is None or self.documents.scored is None:
            return None
        begins = self.documents.borders[:-1]
        counts_D = np.add.reduceat(self.documents.scored, begins, dtype=np.int64)
        hits_D = np.add.reduceat(self.hits & self.documents.scored, begins, dtype=np.int64)
        share, number = float(hits_D.sum() / self.tokens), len(begins)
        if number < 2:
            return share, None
        squares = float(((hits_D - share * counts_D) ** 2).sum())
        return share, math.sqrt(squares * number / (number - 1)) / self.tokens

    def metrics(self, prefix: str = "") -> dict[str, Any]:
        """As in a row of metrics.jsonl."""
        found = self._means() | self.own
        if self.accuracy is not None:
            found["accuracy"] = self.accuracy[0]
        for text, score in self.texts.items():
            found |= score.metrics(f"{text}/")
        return {prefix + name: value for name, value in found.items()}

    def summary(self) -> dict[str, Any]:
        """As in summary.json."""
        names = ("tokens", "bytes", "stride", "unknown")
        found = self._means() | {name: getattr(self, name) for name in names}
        if self.documents is not None:
            own = {"text_nats_per_token": self.text_nats_per_token}
            found |= {"documents": len(self.documents), **own}
        if self.accuracy is not None:
            found |= dict(zip(("accuracy", "accuracy_error"), self.accuracy, strict=True))
        if self.share < 1:
            found["share"] = self.share
        if self.texts:
            found["texts"] = {name: score.summary() for name, score in self.texts.items()}
        return found | ({"own": self.own} if self.own else {})

    def _means(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in MEANS}


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
    """Score every token of a split after its first, of a task the answers, of a mix each text by
    itself; the arguments are those of `token_nats`. own: figures that are computed on the way."""
    if split.texts:
        return _sum(
            {
                name: score_split(
                    model, text, tokenizer, compute, stride, batch_size, on_batch,
                    strided=strided, batch_statistics=batch_statistics, own=own,
                )
                for name, text in split.texts.items()
            }
        )  # fmt: skip
    scored = split.documents.scored if split.documents is not None else None
    measure = own.measure if own else nats_N
    found = token_nats(
        model, np.asarray(split.ids), compute, stride, batch_size, on_batch,
        strided=strided, batch_statistics=batch_statistics, documents=split.documents,
        measure=measure if scored is None else with_hits(measure),
    )  # fmt: skip
    # Contiguous, so that the sum is the same bit for bit.
    nats = np.ascontiguousarray(found[:, 0]) if found.ndim > 1 else found
    patch_size = model.patch_size if strided else None
    resolved = resolve_stride(model.block_size, stride, patch_size) if model.block_size else None
    score = score_of(nats, split, tokenizer, resolved)
    if scored is not None:
        score = replace(score, hits=found[:, -1] > 0)
        found = found[scored, :-1]
    return replace(score, own=own.figures(found[:, 1:])) if own else score


def score_of(
    nats: NDArray[np.floating], split: Split, tokenizer: Tokenizer, stride: int | None
) -> Score:
    """The score from the nats of each token after the first."""
    if split.texts:
        scores, at = dict[str, Score](), 0
        for name, text in split.texts.items():
            end = at + len(text.ids)
            scores[name] = score_of(nats[at : end - 1], text, tokenizer, stride)
            at = end
        return _sum(scores)
    scored = split.documents.scored if split.documents is not None else None
    counted = nats if scored is None else nats[scored]
    return Score(
        nats=float(counted.sum(dtype=np.float64)) + split.unknown_nats,
        tokens=len(counted),
        # Nothing predicts the first token, so its bytes do not count; of documents it has none.
        bytes=split.bytes - int(tokenizer.token_bytes[int(split.ids[0])]),
        lossless=tokenizer.lossless,
        stride=stride,
        unknown=sum(split.unknown.values()),
        token_nats=nats,
        documents=split.documents,
        share=split.share,
    )


def _sum(texts: Mapping[str, Score]) -> Score:
    """The score of all bytes of a mix together. Its texts count by their lengths."""
    scores, own = list(texts.values()), dict[str, float | None]()
    tokens = sum(score.tokens for score in scores)
    for name in scores[0].own:
        means = [(score.own.get(name), score.tokens) for score in scores]
        known = [mean * count for mean, count in means if mean is not None]
        own[name] = sum(known) / tokens if len(known) == len(scores) else None
    nats = [each for score in scores for each in (score.token_nats, np.zeros(1, np.float32))]
    return replace(
        scores[0],
        nats=sum(score.nats for score in scores),
        tokens=tokens,
        bytes=sum(score.bytes for score in scores),
        unknown=sum(score.unknown for score in scores),
        token_nats=np.concatenate(nats[:-1]),
        own=own,
        texts=texts,
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
    documents: Documents | None = None,
) -> NDArray[np.floating]:
    """The nats of each token after the first, (N - 1,), or the values of another `measure`,
    (N - 1, …). Leaves the model as it was.

    stride: of the window of a bounded model, in tokens; None: half of its block_size.
    on_batch: called with the number of tokens just scored; may raise to stop.
    strided: strided inference (Yu et al. 2023, arXiv 2305.07185, section 2.3.3): two passes half a
    patch apart, each token from the pass in which it is in the first half of its patch. Raises
    ValueError for a model without patches.
    batch_statistics: normalize by the batch's statistics, which is not causal.
    documents: each is scored by itself, from an empty past; its end marker is its last token.
    """
    if strided and model.patch_size is None:
        raise ValueError("strided inference is for models with patches, and this one has none")
    if strided and documents is not None:
        raise ValueError("strided inference is for one long text, not for documents")
    patch_size = model.patch_size if strided else None
    if model.block_size is not None:
        stride = resolve_stride(model.block_size, stride, patch_size)

    def one_pass(ids: NDArray[np.integer]) -> NDArray[np.floating]:
        if documents is not None:
            plan = document_windows(documents, model.block_size, stride)
            return _side_by_side(model, ids, compute, plan, batch_size, on_batch, measure)
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


class ScoredWindow(NamedTuple):
    """Reads `length` tokens from `start` on and scores its last `new` predictions."""

    start: int
    length: int
    new: int


def document_windows(
    documents: Documents, block_size: int | None, stride: int | None
) -> list[ScoredWindow]:
    """The windows of each document by itself; one if the model is unbounded."""
    plan = []
    for begin, length in zip(documents.borders.tolist(), documents.lengths.tolist(), strict=False):
        if block_size is None or stride is None or length <= block_size:
            plan.append(ScoredWindow(begin, length, length))
        else:
            inside = windows(length, block_size, stride)
            plan += [ScoredWindow(begin + start, block_size, new) for start, new in inside]
    return plan


def _side_by_side(
    model: LanguageModel,
    ids: NDArray[np.integer],
    compute: Compute,
    plan: list[ScoredWindow],
    batch_size: int,
    on_batch: Callable[[int], None],
    measure: Measure,
) -> NDArray[np.floating]:
    """Windows of unequal length, the shortest first, in padded batches: what a causal model says
    does not depend on the padding. An unbounded model's long documents are streamed."""
    found: NDArray[np.floating] | None = None

    def place(window: ScoredWindow, values: NDArray[np.floating]) -> None:
        nonlocal found
        if found is None:
            found = np.empty((len(ids) - 1, *values.shape[1:]), values.dtype)
        end = window.start + window.length
        found[end - window.new : end] = values[window.length - window.new : window.length]

    plan = sorted(plan, key=lambda window: window.length)
    short = [window for window in plan if model.block_size or window.length <= STREAM_CHUNK]
    for first in range(0, len(short), batch_size):
        batch = short[first : first + batch_size]
        inputs, targets = (part.to(compute.device) for part in padded(ids, batch))
        features_BTC = model(inputs, return_features=True)
        values_BT = score_nats(model, features_BTC, targets, measure).cpu().numpy()
        for window, values in zip(batch, values_BT, strict=True):
            place(window, values)
        on_batch(sum(window.new for window in batch))
    for window in plan[len(short) :]:
        own = ids[window.start : window.start + window.length + 1]
        place(window, np.concatenate([*stream(model, own, compute, on_batch, measure)]))
    assert found is not None, "a split has a document"
    return found


def by_place(nats: NDArray[np.floating], documents: Documents) -> dict[str, float]:
    """The mean nats of the predictions at the places 0, 1, 2-3, 4-7, 8-15 and so on of their
    document, its end marker included; of examples those of the answers there."""
    lengths_D = documents.lengths
    begins = np.repeat(np.cumsum(lengths_D) - lengths_D, lengths_D)
    place = np.arange(len(begins)) - begins
    found, first, longest = {}, 0, int(lengths_D.max())
    while first < longest:
        last = min(max(first, 2 * first - 1), longest - 1)
        inside = (place >= first) & (place <= last)
        if documents.scored is not None:
            inside &= documents.scored
        name = f"{first}" if first == last else f"{first}-{last}"
        if inside.any():
            found[name] = float(nats[inside].mean(dtype=np.float64))
        first = last + 1
    return found


def padded(ids: NDArray[np.integer], batch: list[ScoredWindow]) -> tuple[Tensor, Tensor]:
    """Inputs and targets of these windows, (B, T) each. Behind a window its last token is
    repeated."""
    most = max(window.length for window in batch)
    starts, lengths = (np.array([getattr(each, name) for each in batch])[:, None]
                       for name in ("start", "length"))  # fmt: skip
    window = ids[starts + np.minimum(np.arange(most + 1), lengths)].astype(np.int64)
    return torch.from_numpy(window[:, :-1]), torch.from_numpy(window[:, 1:])


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
