"""Going on from a prompt, through the model's cache: drawing, greedy, beam search.

B batch (samples or beams), T time, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.language_model import Cache, LanguageModel


@dataclass(frozen=True)
class Choice:
    """How the next token is chosen from its logits. temperature 0: always the likeliest.

    top_k: among the k likeliest only. top_p: among the likeliest that together reach probability p
    (Holtzman et al. 2020, arXiv 1904.09751).
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature={self.temperature:g} must be 0 (greedy) or above")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k={self.top_k} must be at least 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p:g} must be above 0 and at most 1")

    def draw(self, logits_BV: Tensor, generator: torch.Generator) -> Tensor:
        """One id for each row, (B, 1)."""
        if self.temperature == 0:
            return logits_BV.argmax(-1, keepdim=True)
        # On the CPU, where the generator lives, so that a seed gives the same text on any device.
        device, logits_BV = logits_BV.device, logits_BV.cpu().double()
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
        return torch.multinomial(logits_BV.softmax(-1), 1, generator=generator).to(device)


@torch.inference_mode()
def generate(
    model: LanguageModel, prompt_BT: Tensor, tokens: int, choice: Choice, seed: int = 0
) -> Tensor:
    """The prompt and `tokens` more, (B, T + tokens). Leaves the model and torch's generator alone.

    A bounded model that runs full goes on from the last half of its window, as it is evaluated.
    """
    generator = torch.Generator().manual_seed(seed)
    with _evaluating(model):
        window = Window(model, prompt_BT)
        ids_BT = prompt_BT
        for made in range(1, tokens + 1):
            next_B1 = choice.draw(window.logits_BV, generator)
            ids_BT = torch.cat([ids_BT, next_B1], dim=1)
            if made < tokens:
                window.extend(ids_BT)
        return ids_BT


@torch.inference_mode()
def beam_search(model: LanguageModel, prompt_T: Tensor, tokens: int, beams: int) -> Tensor:
    """The likeliest continuations found keeping the `beams` best at each step, best first:
    (beams, T + tokens). All have the same length, so none needs a length penalty."""
    with _evaluating(model):
        window = Window(model, prompt_T[None])
        ids_BT = prompt_T[None]
        score_B = torch.zeros(1, device=prompt_T.device)
        for _ in range(tokens):
            joint_BV = score_B[:, None] + window.logits_BV.float().log_softmax(-1)
            vocabulary = joint_BV.shape[-1]
            score_B, best_B = joint_BV.flatten().topk(min(beams, joint_BV.numel()))
            rows_B = best_B // vocabulary
            ids_BT = torch.cat([ids_BT[rows_B], (best_B % vocabulary)[:, None]], dim=1)
            window.select(rows_B)
            window.extend(ids_BT)
        return ids_BT


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

    def select(self, rows_B: Tensor) -> None:
        """Go on from these rows of the batch."""
        self._cache = self._cache.select(rows_B)

    def _begin(self, ids_BT: Tensor, most: int | None) -> tuple[Cache, Tensor]:
        """A cache that has seen the last `most` ids, and the logits after them."""
        ids_BT = ids_BT if most is None else ids_BT[:, -most:]
        cache = self._model.init_cache(len(ids_BT))
        return cache, self._model(ids_BT, cache)[:, -1]


class _evaluating:  # noqa: N801 - used as a statement
    """Dropout off inside the block, and as it was after it."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model

    def __enter__(self) -> None:
        self._was_training = self._model.training
        self._model.eval()

    def __exit__(self, *error: object) -> None:
        self._model.train(self._was_training)
