"""What a model promises: one forward path, cached or not; the receptive field; block_size.

Each check returns what is wrong in words, or None. B batch, T time, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from harness.referee.perturbation import other_ids, random_ids
from zoo.language_model import LanguageModel

TOLERANCE = 1e-10  # in float64
ROWS = 32  # perturbed texts in one call


@torch.no_grad()
def cuts_disagree(
    model: LanguageModel,
    ids_BT: Tensor,
    cuts: Iterable[Sequence[int]],
    tolerance: float = TOLERANCE,
) -> str | None:
    """For any cut into chunks, the cached outputs joined equal one call over all ids; also if rows
    are reordered in the middle, as a search does it."""
    rows, time = ids_BT.shape
    expected = model(ids_BT)
    most = tolerance * max(1.0, expected.abs().max().item())

    def off(found: Tensor, wanted: Tensor, what: str) -> str | None:
        if found.shape != wanted.shape:
            return f"{what}: logits of shape {tuple(found.shape)}, not {tuple(wanted.shape)}"
        difference = (found - wanted).abs().max().item()
        return None if difference <= most else f"{what}: off by {difference:.3g}"

    for inner in cuts:
        cache = model.init_cache(rows)
        chunks = torch.tensor_split(ids_BT, list(inner), dim=1)
        joined = torch.cat([model(chunk, cache) for chunk in chunks], dim=1)
        if cache.pos != time:
            return f"the cache counts {cache.pos} of {time} tokens"
        where = f"cut at {list(inner)}" if len(inner) < 8 else f"cut {len(inner)} times"
        if wrong := off(joined, expected, where):
            return wrong
    half = time // 2
    if half:
        order = [rows - 1, 0, rows - 1]
        cache = model.init_cache(rows)
        model(ids_BT[:, :half], cache)
        continued = model(ids_BT[order, half:], cache.select(order))
        return off(continued, expected[order, half:], "rows of the cache reordered")
    return None


def random_cuts(time: int, count: int = 6, seed: int = 0) -> list[list[int]]:
    """No cut, every cut, and `count` times three at random."""
    generator = np.random.default_rng(seed)
    inner = range(1, time)
    some = min(3, len(inner))
    return [[], list(inner)] + [
        sorted(generator.choice(inner, some, replace=False).tolist()) for _ in range(count)
    ]


@torch.no_grad()
def field_differs(
    model: LanguageModel, vocab_size: int, most: int, seed: int = 1
) -> tuple[str | None, int]:
    """The last position's logits depend on every token within the declared receptive field, except
    those declared unseen, and on none beyond it; also the greatest distance that was tried, at most
    `most`. A token's distance to its own prediction is 1."""
    declared = model.receptive_field
    time = declared + 3 if declared is not None else most
    time = min(time, most, model.block_size or time)
    ids_1T = random_ids(1, time, vocab_size, seed)
    other_1T = other_ids(ids_1T, vocab_size, seed)
    # As many rows, each compared with its own: a kernel may add up the last ones in another order.
    rows = min(ROWS, time)
    last_BV = model(ids_1T.expand(rows, time))[:, -1]
    for first in range(1, time + 1, rows):
        distances = torch.arange(first, first + rows).clamp(max=time)
        places_BT = torch.arange(time) == time - distances[:, None]
        moved_BV = model(torch.where(places_BT, other_1T, ids_1T))[:, -1]
        for distance, sees in zip(distances.tolist(), (moved_BV != last_BV).any(-1), strict=True):
            if sees and distance in model.unseen:
                return f"reads {distance} tokens back, and declares that unseen", time
            within = (declared is None or distance <= declared) and distance not in model.unseen
            if sees and not within:
                return f"reads {distance} tokens back, and declares {declared}", time
            if within and not sees:
                return f"blind to the token {distance} back", time
    return None, time


@torch.no_grad()
def takes_more_than_block_size(model: LanguageModel, vocab_size: int) -> str | None:
    """Going past block_size raises ValueError, cached or not; up to it does not."""
    if model.block_size is None:
        model(random_ids(1, 200, vocab_size, 1))
        return None
    full_1T = random_ids(1, model.block_size, vocab_size, 1)
    model(full_1T)
    longer_1T = random_ids(1, model.block_size + 1, vocab_size, 1)
    if not _refused(lambda: model(longer_1T)):
        return f"takes {model.block_size + 1} tokens, and declares block_size={model.block_size}"
    cache = model.init_cache(1)
    model(full_1T, cache)
    if not _refused(lambda: model(full_1T[:, :1], cache)):
        return f"goes on past block_size={model.block_size} with a cache"
    return None


def _refused(call: Callable[[], object]) -> bool:
    try:
        call()
    except ValueError as error:
        return "block_size" in str(error)
    return False
