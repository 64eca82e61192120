"""The nats of every token of a split, with all the context of its score and with a limited one.

N tokens of a split after its first, B batch, T time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from harness.compute.device import Compute
from harness.evaluation.nats import score_nats
from harness.evaluation.score import scoring, token_nats
from harness.runs.load import Run
from harness.runs.token_nats import TokenNats
from zoo.language_model import LanguageModel

BEYOND = 4  # windows are so many times as long as a training sequence, if the model allows it


def window_length(block_size: int | None, seq_len: int) -> int:
    """The tokens of a window of `limited_nats`: beyond the trained length where the model can."""
    return min(BEYOND * seq_len, block_size or BEYOND * seq_len)


def contexts(tokens: int, length: int) -> NDArray[np.int64]:
    """(N,): how many tokens `limited_nats` shows the model before each."""
    return np.arange(tokens) % length + 1


def token_scores(run: Run, ids: NDArray[np.integer]) -> TokenNats:
    """Score every token after the first, as the run was scored, and in windows."""
    settings, batch_norm = run.settings, run.settings.train.batch_norm == "batch"
    plan = settings.eval
    full_N = token_nats(
        run.model, ids, run.compute, plan.stride, plan.batch_size, batch_statistics=batch_norm
    )
    length = window_length(run.model.block_size, settings.train.seq_len)
    rows = max(1, plan.batch_size * settings.train.seq_len // length)
    with scoring(run.model, run.compute, batch_norm):
        limited_N = np.concatenate(list(limited_nats(run.model, ids, run.compute, length, rows)))
    return TokenNats(full_N, limited_N)


def limited_nats(
    model: LanguageModel, ids: NDArray[np.integer], compute: Compute, length: int, batch_size: int
) -> Iterator[NDArray[np.floating]]:
    """The nats of all tokens, in pieces: the text in windows of `length` tokens, each without
    context before it. Equal for models of equal `length`, so that they are compared token by token.
    Call it inside `scoring`."""
    targets = len(ids) - 1
    whole = targets // length * length
    starts = np.arange(0, whole, length)
    batches = [starts[at : at + batch_size] for at in range(0, len(starts), batch_size)]
    indices = [own[:, None] + np.arange(length + 1) for own in batches]
    if whole < targets:
        indices.append(np.arange(whole, targets + 1)[None])
    for index in indices:
        window = torch.from_numpy(ids[index].astype(np.int64)).to(compute.device)
        features_BTC = model(window[:, :-1], return_features=True)
        yield score_nats(model, features_BTC, window[:, 1:]).flatten().cpu().numpy()
