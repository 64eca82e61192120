"""Generation from a prompt, token by token, with the model's cache.

B batch (samples or beams), T time, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.common.errors import RunFailure
from harness.common.text import printable
from harness.compute.device import Compute
from harness.compute.matmul import blas_for_small
from harness.compute.modes import eval_mode
from harness.config.settings import Settings
from harness.data.dataset import Dataset
from harness.sampling.fixed_step import FixedStep
from zoo.language_model import Cache, LanguageModel
from zoo_tokenizers import Tokenizer, TokenizerError

DEFAULT_PROMPT = "\n"
MOST_PENALTY = 1e9  # a logit in single precision, times it, is finite in double


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen from its logits, in the order of transformers' `generate`:

    repetition_penalty: divides the positive and multiplies the negative logits of ids already in
        the text, prompt included (Keskar et al. 2019, arXiv 1909.05858, section 4.1).
    temperature: divides the logits; 0: greedy.
    top_k: keep the k likeliest.
    top_p: keep the likeliest that together reach probability p (Holtzman et al. 2020, arXiv
        1904.09751).
    min_p: keep those at least min_p times as likely as the likeliest (Nguyen et al. 2024, arXiv
        2407.01082).
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature={self.temperature:g} must be 0 (greedy) or above")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k={self.top_k} must be at least 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p:g} must be above 0 and at most 1")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p={self.min_p:g} must lie between 0 and 1")
        if not 1 / MOST_PENALTY <= self.repetition_penalty <= MOST_PENALTY:
            raise ValueError(
                f"repetition_penalty={self.repetition_penalty:g} must lie between "
                f"{1 / MOST_PENALTY:g} and {MOST_PENALTY:g}"
            )

    def draw(
        self,
        logits_BV: Tensor,
        ids_BT: Tensor,
        generator: torch.Generator,
        allowed_V: Tensor | None = None,
    ) -> Tensor:
        """The next id of each row of `ids_BT`, (B, 1). allowed_V: see `allow_only`. Raises
        RunFailure if no allowed id can occur."""
        # On the CPU: a seed then gives the same text on any device.
        device, logits_BV = logits_BV.device, logits_BV.cpu().double()
        logits_BV = self.penalize(logits_BV, ids_BT.cpu())
        if allowed_V is not None:
            logits_BV = _finite(allow_only(allowed_V, logits_BV))
        if self.temperature == 0:
            return logits_BV.argmax(-1, keepdim=True).to(device)
        return first_arrival(self.truncate(logits_BV).softmax(-1), generator).to(device)

    def penalize(self, logits_BV: Tensor, ids_BT: Tensor) -> Tensor:
        """Apply the repetition penalty to the logits of `ids_BT`."""
        if self.repetition_penalty == 1:
            return logits_BV
        found_BT = logits_BV.gather(-1, ids_BT)
        penalty = self.repetition_penalty
        penalized_BT = torch.where(found_BT < 0, found_BT * penalty, found_BT / penalty)
        return logits_BV.scatter(-1, ids_BT, penalized_BT)

    def truncate(self, logits_BV: Tensor) -> Tensor:
        """The logits minus their largest, by the temperature; -inf for those not kept."""
        logits_BV = (logits_BV - logits_BV.amax(-1, keepdim=True)) / self.temperature
        if self.top_k is not None:
            kth_B1 = logits_BV.topk(min(self.top_k, logits_BV.shape[-1])).values[:, -1:]
            logits_BV = logits_BV.masked_fill(logits_BV < kth_B1, -torch.inf)
        if self.top_p is not None:
            sorted_BV, order_BV = logits_BV.sort(descending=True)
            probabilities_BV = sorted_BV.softmax(-1)
            # A token is kept if those before it have not reached p: at least one always is.
            beyond_BV = probabilities_BV.cumsum(-1) - probabilities_BV >= self.top_p
            logits_BV = logits_BV.masked_fill(
                beyond_BV.scatter(-1, order_BV, beyond_BV), -torch.inf
            )
        if self.min_p:
            logits_BV = logits_BV.masked_fill(logits_BV < math.log(self.min_p), -torch.inf)
        return logits_BV


def first_arrival(probabilities_BV: Tensor, generator: torch.Generator) -> Tensor:
    """An id of each row by its probability, (B, 1): of exponential arrivals at these rates the
    first. The ids of torch.multinomial, whose checks take longer than the draw."""
    times_BV = torch.empty_like(probabilities_BV).exponential_(generator=generator)
    return (probabilities_BV / times_BV).argmax(-1, keepdim=True)


def allow_only(allowed_V: Tensor | None, logits_BV: Tensor) -> Tensor:
    """Set the logits of ids that are not allowed to -inf. None: all are allowed."""
    return logits_BV if allowed_V is None else logits_BV.masked_fill(~allowed_V, -torch.inf)


@torch.inference_mode()
def stream(
    model: LanguageModel,
    prompt_BT: Tensor,
    tokens: int,
    params: SamplingParams,
    seed: int = 0,
    allowed_V: Tensor | None = None,
    step: FixedStep | None = None,
) -> Iterator[Tensor]:
    """Yield the next token of every row, (B, 1), `tokens` times.

    Uses a generator of its own and leaves the model as it was. When the window of a bounded model
    is full, generation continues from its last half, as in evaluation. step: made once of this
    model and so many rows, faster than its calls.
    """
    generator = torch.Generator().manual_seed(seed)
    with eval_mode(model), blas_for_small(model) if step is None else nullcontext():
        window = Window(model, prompt_BT, step)
        ids_BT = prompt_BT
        for made in range(1, tokens + 1):
            next_B1 = params.draw(window.logits_BV, ids_BT, generator, allowed_V)
            yield next_B1
            if made < tokens:
                ids_BT = torch.cat([ids_BT, next_B1], dim=1)
                window.extend(next_B1, ids_BT)


def generate(
    model: LanguageModel,
    prompt_BT: Tensor,
    tokens: int,
    params: SamplingParams,
    seed: int = 0,
    allowed_V: Tensor | None = None,
    step: FixedStep | None = None,
) -> Tensor:
    """The prompt and `tokens` more from `stream`, (B, T + tokens)."""
    new = stream(model, prompt_BT, tokens, params, seed, allowed_V, step)
    return torch.cat([prompt_BT, *new], dim=1)


def encode_prompt(tokenizer: Tokenizer, text: str) -> NDArray[np.integer]:
    """The prompt's ids: none of an empty one, of one that is nothing to a lossy tokenizer, and of
    the default where the text has no line break. Of documents: how one begins, after the marker.
    Raises TokenizerError for any other prompt that can't be encoded."""
    if tokenizer.marker is not None:
        own = tokenizer.encode("" if text == DEFAULT_PROMPT else text)
        return np.concatenate([[tokenizer.marker], own.astype(np.int64)])
    try:
        return tokenizer.encode(text)
    except TokenizerError:
        if text != DEFAULT_PROMPT:
            raise
        return np.empty(0, dtype=np.uint8)


def sample_text(
    model: LanguageModel,
    dataset: Dataset,
    settings: Settings,
    compute: Compute,
    check: Callable[[], None] = lambda: None,
) -> str:
    """`eval.sample_tokens` tokens after the prompt, or after train's first token if it has none. Of
    documents: one after the other, a line each, until they have so many tokens together.

    check: called before each token; may raise to stop.
    """
    ids = encode_prompt(dataset.tokenizer, settings.eval.prompt)
    if not len(ids):
        ids = dataset.train.ids[:1]
    prompt_BT = torch.from_numpy(np.asarray(ids).astype(np.int64))[None].to(compute.device)
    tokens, marker = settings.eval.sample_tokens, dataset.tokenizer.marker
    texts, left = list[str](), tokens
    while left:
        text = prompt_BT[0].tolist()
        seed = settings.seed + len(texts)
        for next_B1 in stream(model, prompt_BT, left, SamplingParams(), seed):
            check()
            text.append(next_B1.item())
            left -= 1
            if text[-1] == marker:
                break
        texts.append(printable(dataset.tokenizer.decode(text)))
    return "\n".join(texts)


class Window:
    """A model, its cache, and the next token's logits, `logits_BV`. Raises RunFailure if they are
    NaN or infinite. step: takes the place of the model's calls with one token."""

    def __init__(self, model: LanguageModel, ids_BT: Tensor, step: FixedStep | None = None) -> None:
        self._model = model
        self._step = step
        self._cache, self.logits_BV = self._begin(ids_BT, model.block_size)

    def extend(self, next_B1: Tensor, ids_BT: Tensor) -> None:
        """Process the next token of each row. ids_BT: all so far, with it."""
        block_size = self._model.block_size
        if block_size is not None and self._cache.pos >= block_size:
            self._cache, self.logits_BV = self._begin(ids_BT, max(1, block_size // 2))
        elif self._step is not None:
            self._cache.pos += 1
            self.logits_BV = _finite(self._step(next_B1))
        else:
            self.logits_BV = _finite(self._model(next_B1, self._cache)[:, -1])

    def select(self, rows_B: list[int]) -> None:
        """Keep these rows of the batch. Not with a step."""
        assert self._step is None
        self._cache = self._cache.select(rows_B)

    def _begin(self, ids_BT: Tensor, last: int | None) -> tuple[Cache, Tensor]:
        """A new cache filled with the last ids, and the logits after them."""
        ids_BT = ids_BT if last is None else ids_BT[:, -last:]
        cache = self._model.init_cache(len(ids_BT))
        logits_BV = _finite(self._model(ids_BT, cache)[:, -1])
        if self._step is not None:
            self._step.load(cache)
        return cache, logits_BV


def _finite(logits_BV: Tensor) -> Tensor:
    """The logits. Raises RunFailure if no next token can be drawn from them."""
    # -inf, for an id that can't occur, is in order. torch's isfinite takes twice as long.
    if not (logits_BV.amax(-1).abs() < math.inf).all():
        raise RunFailure("the model's logits are NaN or infinite: no text can be sampled")
    return logits_BV
