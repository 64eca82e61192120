"""What is seen of each token: its loss, by its frequency, and the passages that surprise most."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from harness.compute.device import Compute
from harness.evaluation import nats as nats_module
from harness.evaluation.calibration import Floats, fit_temperature, token_statistics
from harness.evaluation.nats import Measure
from harness.evaluation.score import token_nats
from harness.evaluation.surprise import by_frequency, most_surprising
from tests.evaluation.calibrating import fixed, observed
from tests.zoo_models import NAMES, VOCAB, maker, random_ids

CPU = Compute(torch.device("cpu"), "fp32")


@pytest.mark.parametrize("name", NAMES)
def test_every_architecture_is_looked_at_token_by_token(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once each, in the windows of the exact evaluation, whatever the chunks; and the temperature
    is the one that was asked for."""
    monkeypatch.setattr(nats_module, "CHUNK_LOGITS", 7 * VOCAB)
    model = maker(name, "train.seq_len=32")()
    ids = random_ids(1, 75)[0].numpy()
    unused = np.arange(VOCAB) % 5 == 0

    def one_pass(measure: Measure) -> Floats:
        return token_nats(model, ids, CPU, batch_size=3, measure=measure)

    found = token_statistics(one_pass, ids[1:], 2.0, unused)
    nats = token_nats(model, ids, CPU)
    assert found.nats.shape == (74, 2)
    np.testing.assert_allclose(found.nats[:, 0], nats, rtol=1e-9)
    # All of it again from the probabilities of every id.
    p = one_pass(lambda logits, targets: logits.softmax(-1))
    np.testing.assert_allclose(found.confidence[:, 0], p.max(-1), rtol=1e-9)
    np.testing.assert_allclose(found.unused, p[:, unused].sum(-1), rtol=1e-9)
    # By their probabilities: a model that counts has many that are equal.
    guessed = np.take_along_axis(p, found.guesses, axis=-1)
    np.testing.assert_allclose(guessed, -np.sort(-p, axis=-1)[:, :3], rtol=1e-9)
    np.testing.assert_allclose(found.probabilities, -np.sort(-p)[:, :3], rtol=1e-9)
    root = p**0.5 / (p**0.5).sum(-1, keepdims=True)  # temperature 2
    np.testing.assert_allclose(found.confidence[:, 1], root.max(-1), rtol=1e-9)
    np.testing.assert_allclose(found.nats[:, 1], -np.log(root[range(74), ids[1:]]), rtol=1e-9)
    assert (found.correct == (p.argmax(-1) == ids[1:])).all()


def test_loss_by_frequency() -> None:
    counts = np.array([1000, 0, 0, 1, 9, 10, 99, 100])
    targets = [0, 0, 0, 1, 3, 4, 5, 6, 6]
    bands = by_frequency(observed([1, 2, 6, 9, 4, 6, 1, 2, 3], targets), counts)
    assert [(band.least, band.most) for band in bands] == [
        (0, 0), (1, 9), (10, 99), (100, 999), (1000, None)
    ]  # fmt: skip
    assert [band.ids for band in bands] == [2, 2, 2, 1, 1]
    assert [band.tokens for band in bands] == [1, 2, 3, 0, 3]
    assert [band.nats_per_token for band in bands] == [9, 5, 2, None, 3]
    assert [band.accuracy for band in bands] == [0, 0, 0, None, 1]
    total = sum(band.tokens * (band.nats_per_token or 0) for band in bands)
    assert total == pytest.approx(1 + 2 + 6 + 9 + 4 + 6 + 1 + 2 + 3)


@pytest.mark.parametrize("length", [1, 4, 30, 100])
def test_the_most_surprising_passages_are_the_worst_apart(length: int) -> None:
    nats = np.random.default_rng(3).exponential(size=100)
    begins = most_surprising(nats, length, 5)
    assert len(begins) == min(5, 100 // length) or length == 30
    taken: set[int] = set()
    for begin in begins:
        free = [
            start
            for start in range(100 - length + 1)
            if not taken & set(range(start, start + length))
        ]
        means = {start: nats[start : start + length].mean() for start in free}
        assert means[begin] == pytest.approx(max(means.values()))
        taken |= set(range(begin, begin + length))
    assert most_surprising(nats[:9], 30, 5) == [0]


def test_log_of_the_smallest_p_is_finite() -> None:
    """Of a target that the model all but rules out."""
    logits = torch.tensor([[0.0, -1e4]])
    nats = token_statistics(
        fixed(logits, torch.tensor([1])), np.array([1]), 1.0, np.zeros(2, bool)
    ).nats
    assert nats[0].tolist() == [1e4, 1e4]
    assert math.isfinite(fit_temperature(fixed(logits, torch.tensor([1]))).value)
