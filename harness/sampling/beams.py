"""Beam search.

B beams, T time, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.compute.matmul import blas_for_small
from harness.compute.modes import eval_mode
from harness.sampling.decode import Window, allow_only
from zoo.language_model import LanguageModel


@dataclass(frozen=True)
class Beam:
    """added: the ids after the prompt; log_p: their log probability, in nats; score: ranks it."""

    added: list[int]
    log_p: float
    score: float


def normalizer(length: int, alpha: float) -> float:
    """The length penalty that divides a log probability: ((5 + length) / 6)^alpha (Wu et al. 2016,
    arXiv 1609.08144, equation 14)."""
    return float(((5 + length) / 6) ** alpha)


@torch.inference_mode()
def beam_search(
    model: LanguageModel,
    prompt_T: Tensor,
    tokens: int,
    beams: int,
    *,
    alpha: float = 0.0,
    ends: Callable[[list[int]], bool] = lambda added: False,
    allowed_V: Tensor | None = None,
) -> list[Beam]:
    """At most `beams` continuations of at most `tokens` tokens, best first.

    ends: whether a text with these ids after the prompt is complete. A complete text leaves its
    place to another beam; the search ends when no open beam can still win.
    alpha: of the length penalty, see `normalizer`.
    """
    if not 0 <= alpha < float("inf"):
        raise ValueError(f"alpha={alpha:g} must be 0 or above")
    begins, bound = len(prompt_T), normalizer(tokens, alpha)
    ids_BT, log_p_B = prompt_T[None], torch.zeros(1, dtype=torch.float64)
    complete: list[Beam] = []
    with eval_mode(model), blas_for_small(model):
        window = Window(model, ids_BT)
        for length in range(1, tokens + 1):
            logits_BV = allow_only(allowed_V, window.logits_BV.cpu().double())
            log_ps_BV = logits_BV.log_softmax(-1)  # NaN where no allowed id can occur
            joint_BV = log_p_B[:, None] + log_ps_BV.masked_fill(log_ps_BV.isnan(), -torch.inf)
            texts = ids_BT[:, begins:].tolist()
            going: list[tuple[float, int, int]] = []
            for log_p, row, id_ in _likeliest_first(joint_BV, 2 * beams):
                added = [*texts[row], id_]
                ended = ends(added)
                if ended or length == tokens:
                    complete.append(Beam(added, log_p, log_p / normalizer(length, alpha)))
                if not ended:
                    going.append((log_p, row, id_))
                if len(going) == beams:
                    break
            complete = sorted(complete, key=lambda beam: -beam.score)[:beams]
            # A log probability only falls, and `bound` is the largest divisor.
            if not going or (len(complete) == beams and going[0][0] / bound <= complete[-1].score):
                break
            if length < tokens:
                log_ps, rows, ids = map(list, zip(*going, strict=True))
                log_p_B = torch.tensor(log_ps, dtype=torch.float64)
                next_B1 = torch.tensor(ids, device=ids_BT.device)[:, None]
                ids_BT = torch.cat([ids_BT[rows], next_B1], dim=1)
                window.select(rows)
                window.extend(next_B1, ids_BT)
    return complete


def _likeliest_first(joint_BV: Tensor, at_first: int) -> Iterator[tuple[float, int, int]]:
    """Yield (log probability, row, id) of all possible next tokens in descending order."""
    flat, given = joint_BV.flatten(), dict[int, float]()
    while len(given) < len(flat):
        values, places = flat.topk(min(len(flat), max(at_first, 2 * len(given))))
        for value, place in zip(values.tolist(), places.tolist(), strict=True):
            if value == -torch.inf:
                return
            if place not in given:
                given[place] = value
                yield (value, *divmod(place, joint_BV.shape[-1]))
