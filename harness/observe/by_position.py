"""The loss by position: how much a model gains from each token of context.

Every architecture reads the same windows, each as long as a training sequence and without context
before it. B batch, T time, P patch, N tokens of a split.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from numpy.typing import NDArray

from harness.compute.device import Compute
from harness.evaluation.nats import score_nats
from zoo.language_model import LanguageModel

MAX_WINDOWS = 256  # evenly spread over a long split


def loss_by_position(
    model: LanguageModel,
    ids: NDArray[np.integer],
    compute: Compute,
    seq_len: int,
    batch_size: int,
    max_windows: int = MAX_WINDOWS,
) -> NDArray[np.float64]:
    """The mean nats at each position of a window of T = `seq_len` tokens, (T,). The model must be
    in evaluation mode."""
    windows = (len(ids) - 1) // seq_len
    chosen = np.unique(np.linspace(0, windows - 1, min(windows, max_windows)).astype(np.int64))
    index = chosen[:, None] * seq_len + np.arange(seq_len + 1)
    total_T = torch.zeros(seq_len, dtype=torch.float64)
    with torch.inference_mode(), compute.autocast():
        for rows in np.split(index, range(batch_size, len(index), batch_size)):
            window = torch.from_numpy(np.asarray(ids)[rows].astype(np.int64)).to(compute.device)
            features_BTC = model(window[:, :-1], return_features=True)
            nats_BT = score_nats(model, features_BTC, window[:, 1:])
            total_T += nats_BT.cpu().double().sum(0)
    return (total_T / len(index)).numpy()


def over_ranges(loss_T: NDArray[np.float64]) -> dict[str, float]:
    """The mean loss at positions 0, 1, 2-3, 4-7, 8-15 and so on."""
    bounds = [0, *(2**power for power in range(len(loss_T).bit_length())), len(loss_T)]
    return {
        f"{start}-{end - 1}" if end - start > 1 else f"{start}": float(loss_T[start:end].mean())
        for start, end in itertools.pairwise(bounds)
        if start < end
    }


def over_patch(loss_T: NDArray[np.float64], patch_size: int) -> list[float]:
    """The mean loss by the predicted token's place in its patch, (P,). Patches start with the
    window."""
    places_T = np.arange(1, len(loss_T) + 1) % patch_size
    return [float(loss_T[places_T == place].mean()) for place in range(patch_size)]
