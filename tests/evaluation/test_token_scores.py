"""The loss over the context: a model that sees k tokens gains nothing past k."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.evaluation.score import scoring, token_nats
from harness.evaluation.token_scores import contexts, limited_nats, window_length
from harness.report.statistics.where import Tokens, context_curve
from tests.zoo.laws import CPU
from zoo.gpt import GPT
from zoo.language_model import LanguageModel
from zoo.mlp import MLP
from zoo.ngram import NGram

V, N = 7, 301
IDS = np.random.default_rng(0).integers(0, V, N + 1)


def counted(order: int) -> LanguageModel:
    model = NGram(V, order).double()
    assert model.fit is not None
    model.fit(torch.from_numpy(IDS))
    return model


def limited(model: LanguageModel, length: int, batch_size: int = 3) -> np.ndarray:
    with scoring(model, CPU):
        return np.concatenate(list(limited_nats(model, IDS, CPU, length, batch_size)))


def test_each_window_is_a_text_of_its_own() -> None:
    """Whatever the batch size, and with a last window that is short."""
    torch.manual_seed(0)
    model = GPT(V, block_size=32, n_layer=1, n_head=2, n_embd=8).double().eval()
    found = limited(model, 32)
    assert len(found) == N
    for start in range(0, N, 32):
        alone = token_nats(model, IDS[start : start + 33], CPU)
        assert found[start : start + 32] == pytest.approx(alone, abs=1e-12)
    assert limited(model, 32, batch_size=64) == pytest.approx(found, abs=1e-12)


@pytest.mark.parametrize("k", [1, 3, 6])
def test_a_model_that_sees_k_tokens_gains_nothing_past_k(k: int) -> None:
    models = [counted(k + 1), MLP(V, k, 1, 4, 8).double().eval()]
    length = 64
    for model in models:
        assert model.receptive_field == k
        full, windows = token_nats(model, IDS, CPU), limited(model, length)
        seen = contexts(N, length)
        assert windows[seen >= k] == pytest.approx(full[seen >= k], abs=1e-12)
        if k > 1:
            assert not np.allclose(windows[seen < k], full[seen < k], atol=1e-6)
        curve = context_curve([full], [windows], seen, 16, Tokens(np.ones(N + 1, int), N))
        assert curve.last == (1, 2, 4, 8, 16, 32, 64)
        past = [bits for end, bits in zip(curve.last, curve.bits, strict=True) if end // 2 >= k]
        assert past == pytest.approx([curve.full] * len(past), abs=1e-12)
        assert curve.gains_until <= (8 if k == 6 else 4 if k == 3 else 0)


def test_windows_go_beyond_the_trained_length_where_the_model_can() -> None:
    assert window_length(None, 64) == 256
    assert window_length(64, 64) == 64
    assert window_length(100, 64) == 100
    assert contexts(5, 3).tolist() == [1, 2, 3, 1, 2]
