"""Beam search: the likeliest texts, found without drawing.

B beams, T time, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.sampling.decode import Window, allow_only, evaluating
from zoo.language_model import LanguageModel


@dataclass(frozen=True)
class Beam:
    """One text. added: the ids after the prompt; log_p: theirs, in nats; score: what ranks it."""

    added: list[int]
    log_p: float
    score: float


def normalizer(length: int, alpha: float) -> float:
    """What the log probability of `length` tokens is divided by: ((5 + length) / 6)^alpha (Wu et
    al. 2016, arXiv 1609.08144, equation 14). alpha 0: 1, which favours short texts."""
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
    """The best continuations found keeping the `beams` likeliest at each step, best first: at most
    `beams`, of at most `tokens` tokens.

    ends: told what would be added; whether the text is then complete. What is complete is set
    aside, and its place goes to one that goes on, until none of these can still win.
    alpha: of the length normalization, by which texts of different lengths are ranked.
    """
    if not 0 <= alpha < float("inf"):
        raise ValueError(f"alpha={alpha:g} must be 0 or above")
    begins, bound = len(prompt_T), normalizer(tokens, alpha)
    ids_BT, log_p_B = prompt_T[None], torch.zeros(1, dtype=torch.float64)
    complete: list[Beam] = []
    with evaluating(model):
        window = Window(model, ids_BT)
        for length in range(1, tokens + 1):
            logits_BV = allow_only(allowed_V, window.logits_BV.cpu().double())
            joint_BV = log_p_B[:, None] + logits_BV.log_softmax(-1)
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
            # A log probability only falls, and is divided by `bound` at most.
            if not going or (len(complete) == beams and going[0][0] / bound <= complete[-1].score):
                break
            if length < tokens:
                log_ps, rows, ids = map(list, zip(*going, strict=True))
                log_p_B = torch.tensor(log_ps, dtype=torch.float64)
                next_B1 = torch.tensor(ids, device=ids_BT.device)[:, None]
                ids_BT = torch.cat([ids_BT[rows], next_B1], dim=1)
                window.select(rows)
                window.extend(ids_BT)
    return complete


def _likeliest_first(joint_BV: Tensor, at_first: int) -> Iterator[tuple[float, int, int]]:
    """(log probability, row, id) of all that can be, from the top, looking at as few as needed."""
    flat, given = joint_BV.flatten(), dict[int, float]()
    while len(given) < len(flat):
        values, places = flat.topk(min(len(flat), max(at_first, 2 * len(given))))
        for value, place in zip(values.tolist(), places.tolist(), strict=True):
            if value == -torch.inf:
                return
            if place not in given:
                given[place] = value
                yield (value, *divmod(place, joint_BV.shape[-1]))
