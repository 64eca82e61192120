"""Going on from a prompt, through the model's cache, token by token.

B batch (samples or beams), T time, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.language_model import Cache, LanguageModel


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is chosen from its logits. temperature 0: always the likeliest.

    In this order, which is that of transformers' `generate`:
    repetition_penalty: the logits of ids that the text has already, prompt included, divided by it
        where positive and multiplied where negative (Keskar et al. 2019, arXiv 1909.05858,
        section 4.1).
    temperature: what the logits are divided by.
    top_k: among the k likeliest only.
    top_p: among the likeliest that together reach probability p (Holtzman et al. 2020, arXiv
        1904.09751).
    min_p: among those at least min_p times as likely as the likeliest (Nguyen et al. 2024, arXiv
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
        if not 0 < self.repetition_penalty < math.inf:
            raise ValueError(f"repetition_penalty={self.repetition_penalty:g} must be above 0")

    def draw(
        self,
        logits_BV: Tensor,
        ids_BT: Tensor,
        generator: torch.Generator,
        allowed_V: Tensor | None = None,
    ) -> Tensor:
        """One id for each row, (B, 1), to go on after `ids_BT`. allowed_V: see `allow_only`."""
        # On the CPU, where the generator lives, so that a seed gives the same text on any device.
        device, logits_BV = logits_BV.device, logits_BV.cpu().double()
        logits_BV = allow_only(allowed_V, self.penalize(logits_BV, ids_BT.cpu()))
        if self.temperature == 0:
            return logits_BV.argmax(-1, keepdim=True).to(device)
        probabilities_BV = self.truncate(logits_BV).softmax(-1)
        return torch.multinomial(probabilities_BV, 1, generator=generator).to(device)

    def penalize(self, logits_BV: Tensor, ids_BT: Tensor) -> Tensor:
        """The logits, those of the ids that are there already by the repetition penalty."""
        if self.repetition_penalty == 1:
            return logits_BV
        found_BT = logits_BV.gather(-1, ids_BT)
        penalty = self.repetition_penalty
        penalized_BT = torch.where(found_BT < 0, found_BT * penalty, found_BT / penalty)
        return logits_BV.scatter(-1, ids_BT, penalized_BT)

    def truncate(self, logits_BV: Tensor) -> Tensor:
        """The logits at this temperature, less their largest; -inf for what is not drawn from."""
        # Relative to the largest, which the lowest temperature then leaves at 0.
        logits_BV = (logits_BV - logits_BV.amax(-1, keepdim=True)) / self.temperature
        if self.top_k is not None:
            kth_B1 = logits_BV.topk(min(self.top_k, logits_BV.shape[-1])).values[:, -1:]
            logits_BV = logits_BV.masked_fill(logits_BV < kth_B1, -torch.inf)
        if self.top_p is not None:
            sorted_BV, order_BV = logits_BV.sort(descending=True)
            probabilities_BV = sorted_BV.softmax(-1)
            # A token stays while those before it have not reached p: at least one always does.
            beyond_BV = probabilities_BV.cumsum(-1) - probabilities_BV >= self.top_p
            logits_BV = logits_BV.masked_fill(
                beyond_BV.scatter(-1, order_BV, beyond_BV), -torch.inf
            )
        if self.min_p:
            logits_BV = logits_BV.masked_fill(logits_BV < math.log(self.min_p), -torch.inf)
        return logits_BV


def allow_only(allowed_V: Tensor | None, logits_BV: Tensor) -> Tensor:
    """-inf for every id that is not among the allowed. None: all are."""
    return logits_BV if allowed_V is None else logits_BV.masked_fill(~allowed_V, -torch.inf)


@torch.inference_mode()
def stream(
    model: LanguageModel,
    prompt_BT: Tensor,
    tokens: int,
    choice: SamplingParams,
    seed: int = 0,
    allowed_V: Tensor | None = None,
) -> Iterator[Tensor]:
    """The next token of every row, (B, 1), `tokens` times, each as soon as it is chosen.

    Leaves the model and torch's generator alone. A bounded model that runs full goes on from the
    last half of its window, as it is evaluated.
    """
    generator = torch.Generator().manual_seed(seed)
    with evaluating(model):
        window = Window(model, prompt_BT)
        ids_BT = prompt_BT
        for made in range(1, tokens + 1):
            next_B1 = choice.draw(window.logits_BV, ids_BT, generator, allowed_V)
            yield next_B1
            if made < tokens:
                ids_BT = torch.cat([ids_BT, next_B1], dim=1)
                window.extend(ids_BT)


def generate(
    model: LanguageModel,
    prompt_BT: Tensor,
    tokens: int,
    choice: SamplingParams,
    seed: int = 0,
    allowed_V: Tensor | None = None,
) -> Tensor:
    """The prompt and `tokens` more, (B, T + tokens), as `stream` chooses them."""
    return torch.cat([prompt_BT, *stream(model, prompt_BT, tokens, choice, seed, allowed_V)], dim=1)


class Window:
    """A model, its cache, and the logits of the token to come; `logits_BV` is (B, V)."""

    def __init__(self, model: LanguageModel, ids_BT: Tensor) -> None:
        self._model = model
        self._cache, self.logits_BV = self._begin(ids_BT, model.block_size)

    def extend(self, ids_BT: Tensor) -> None:
        """Take in the newest of all the ids so far."""
        full = self._model.block_size is not None and self._cache.pos >= self._model.block_size
        if full:
            half = max(1, (self._model.block_size or 0) // 2)
            self._cache, self.logits_BV = self._begin(ids_BT, half)
        else:
            self.logits_BV = self._model(ids_BT[:, -1:], self._cache)[:, -1]

    def select(self, rows_B: list[int]) -> None:
        """Go on from these rows of the batch."""
        self._cache = self._cache.select(rows_B)

    def _begin(self, ids_BT: Tensor, most: int | None) -> tuple[Cache, Tensor]:
        """A cache that has seen the last `most` ids, and the logits after them."""
        ids_BT = ids_BT if most is None else ids_BT[:, -most:]
        cache = self._model.init_cache(len(ids_BT))
        return cache, self._model(ids_BT, cache)[:, -1]


class evaluating:  # noqa: N801 - used as a statement
    """Dropout off inside the block, and as it was after it."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model

    def __enter__(self) -> None:
        self._was_training = self._model.training
        self._model.eval()

    def __exit__(self, *error: object) -> None:
        self._model.train(self._was_training)
