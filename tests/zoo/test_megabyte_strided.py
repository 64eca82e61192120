"""MEGABYTE's strided inference scores each token once, early in its patch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from harness.evaluation import score as metrics
from harness.evaluation.score import token_nats
from tests.conftest import Ended
from tests.small_runs import train
from tests.zoo.laws import CPU, TOLERANCE
from tests.zoo.small_megabyte import build
from tests.zoo_models import random_ids
from zoo.language_model import Cache, LanguageModel


class Ledger(LanguageModel):
    """Its nats say which token was scored, and where in its window: 1000 + 512·(the token before)
    + (the position in the window of the token before)."""

    def __init__(self, block_size: int | None, patch_size: int | None) -> None:
        super().__init__()
        self.vocab_size, self.block_size, self.patch_size = 300, block_size, patch_size
        self.head = torch.nn.Identity()

    def features(self, ids_BT: torch.Tensor, cache: Cache | None = None) -> torch.Tensor:
        past = self.advance(ids_BT, cache)
        positions_T = torch.arange(past, past + ids_BT.shape[1])
        logits_BTV = torch.zeros(*ids_BT.shape, 301, dtype=torch.float64)
        logits_BTV[:, :, 300] = 1000.0 + 512 * ids_BT + positions_T  # takes all the probability
        return logits_BTV


def check_strided(tokens: int, block_size: int | None, patch_size: int, stride: int | None) -> None:
    """Each token once, in order, in the first half of a patch, with its context."""
    model = Ledger(block_size, patch_size)
    nats = token_nats(model, np.arange(tokens), CPU, stride, batch_size=3, strided=True)
    before, position = np.divmod(nats.round().astype(int) - 1000, 512)
    assert (before + 1).tolist() == list(range(1, tokens))
    for token, at in zip(range(1, tokens), position + 1, strict=True):
        begin = token - at
        if token < patch_size:  # nothing lies before the first patch to shift it by
            assert begin == 0
            continue
        assert begin >= 0
        assert at % patch_size <= (patch_size - 1) // 2
        if block_size is None:
            assert begin <= patch_size
        else:
            moved = metrics.resolve_stride(block_size, stride, patch_size)
            assert at <= block_size
            assert at > min(block_size - moved, token - patch_size)


@given(st.integers(2, 200), st.integers(1, 7), st.integers(1, 6), st.booleans(), st.data())
def test_strided_inference_scores_each_token_once_and_early_in_its_patch(
    tokens: int, patch_size: int, patches: int, bounded: bool, data: st.DataObject
) -> None:
    stride = data.draw(st.none() | st.integers(1, patches).map(lambda n: n * patch_size))
    check_strided(tokens, patches * patch_size if bounded else None, patch_size, stride)


def _one_pass(one_pass: Any, ids: NDArray[Any], patch_size: int) -> NDArray[Any]:
    return one_pass(ids)[: len(ids) - 1]


def _second_pass_late(one_pass: Any, ids: NDArray[Any], patch_size: int) -> NDArray[Any]:
    def late(part: NDArray[Any]) -> NDArray[Any]:
        return one_pass(part) if len(part) == len(ids) else np.roll(one_pass(part), 1)

    return TWO_PASSES(late, ids, patch_size)


TWO_PASSES = metrics._two_passes


@pytest.mark.parametrize(
    ("name", "mutant"),
    [
        ("_two_passes", _one_pass),
        ("_two_passes", _second_pass_late),
        ("_two_passes", lambda score, ids, patch: TWO_PASSES(score, ids, patch - 1)),
        ("_two_passes", lambda score, ids, patch: TWO_PASSES(score, ids, 2 * patch)),
        ("_pad", lambda ids, block_size, stride: ids),
    ],
)
def test_strided_inference_mutants_are_caught(
    name: str, mutant: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_strided(50, 12, 4, 8)
    monkeypatch.setattr(metrics, name, mutant)
    with pytest.raises(AssertionError):
        check_strided(50, 12, 4, 8)


def test_strided_inference_equals_the_windows_it_stands_for() -> None:
    """With a stride of one patch: windows that begin a whole number of patches, and those that
    begin half a patch later."""
    model = build(4)
    ids = random_ids(1, 31, vocab_size=7)[0]
    found = token_nats(model, ids.numpy(), CPU, stride=4, batch_size=2, strided=True)
    for token in range(4, 31):
        shift = 0 if token % 4 < 2 else 2
        windows_before = max(0, -(-(token - shift - 12) // 4))
        begin = shift + 4 * windows_before
        assert (token - begin) % 4 < 2
        with torch.no_grad():
            logits = model(ids[None, begin:token])[0, -1]
        assert found[token - 1] == pytest.approx(-logits.log_softmax(-1)[ids[token]].item())
    for batch_size in (1, 64):
        again = token_nats(model, ids.numpy(), CPU, 4, batch_size, strided=True)
        np.testing.assert_allclose(again, found, rtol=0, atol=TOLERANCE)
    assert not np.allclose(found, token_nats(model, ids.numpy(), CPU, stride=4))


def test_strided_inference_is_refused_where_it_can_not_be() -> None:
    with pytest.raises(ValueError, match="patches"):
        token_nats(Ledger(8, None), np.arange(20), CPU, strided=True)
    with pytest.raises(ValueError, match="stride=6 must be a multiple of the patch of 4 tokens"):
        token_nats(Ledger(8, 4), np.arange(20), CPU, stride=6, strided=True)


def test_evaluate_offers_strided_inference(tmp_path: Any, command: Callable[..., Ended]) -> None:
    def score(model: str, *options: str) -> Ended:
        run = tmp_path / model / "run"
        return command("evaluate", run, "--device", "cpu", "--strided-inference", *options)

    for model in ("megabyte", "bigram"):
        assert train(tmp_path / model, f"model={model}", "train.steps=1") == 0
    plain = command("evaluate", tmp_path / "megabyte" / "run", "--device", "cpu")
    found = [
        dict(line.split(maxsplit=1) for line in ended.out.splitlines())
        for ended in (plain, score("megabyte"))
    ]
    assert [each["strided_inference"] for each in found] == ["False", "True"]
    assert found[0]["tokens"] == found[1]["tokens"]
    assert found[0]["bits_per_byte"] != found[1]["bits_per_byte"]
    assert "--strided-inference has no meaning for bigram" in score("bigram").err
    assert "--stride=6 must be a multiple of the patch" in score("megabyte", "--stride", "6").err
