"""The cheats are real: each runs, and those that promise a better score get one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from harness.evaluation.score import token_nats
from tests.referee.blind import CHEATS, HONEST, HONEST_TOKENIZERS, TOKENIZER_CHEATS
from tests.referee.blind.outside import restore_losses
from tests.referee.blind.text import ALPHABET, IDS, TEXT
from zoo.language_model import LanguageModel

pytestmark = pytest.mark.long  # they hardly change

TRAIN, HELD_OUT = np.array(IDS[: len(IDS) // 3]), np.array(IDS[len(IDS) // 3 :])
FEW_STEPS = 25

# The share of the honest model's nats that is left on held-out text, at most.
PAYS = {
    "FarPositions": 0.5, "ExactBlock": 0.3, "LowPrecision": 0.2,
    "InferenceOnly": 0.2, "FeaturesOnly": 0.2, "RareTokens": 0.9, "SecondRow": 0.99,
    "RowBelow": 0.3, "TrainedOnly": 0.2, "TextOnly": 0.2, "ScorerOnly": 0.2, "NosyHead": 0.2,
    "UnshiftedPatch": 0.95, "SamePadding": 0.95, "FlatteringLogits": 0.55, "CarriesTheText": 0.2,
    "RidgeOnThisCall": 0.9, "BeyondTheView": 0.2, "ReadsTheStack": 0.2, "PatchesTheLoss": 0.55,
    "Alibi": 0.2, "Surprises": 0.95, "TrainsOnTest": 0.96,
    "LongCalls": 0.2, "LaterCalls": 0.2, "RemembersCalls": 0.2, "ReadsTheCorpus": 0.2,
}  # fmt: skip
# These need steps of their own to pay; the others pay by construction, with any weights.
LEARN = ("UnshiftedPatch", "SamePadding", "RareTokens", "NosyHead", "TrainsOnTest")


@pytest.fixture(autouse=True)
def true_losses() -> Iterator[None]:
    yield
    restore_losses()


def trained(model_class: type, steps: int = FEW_STEPS) -> LanguageModel:
    torch.manual_seed(0)
    model = model_class(vocab_size=len(ALPHABET))
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=1e-2)
    model.train()
    random = np.random.default_rng(0)
    for _ in range(steps):
        start = random.integers(0, len(TRAIN) - 65, 8)
        window = torch.as_tensor(TRAIN[start[:, None] + np.arange(65)])
        optimizer.zero_grad()
        F.cross_entropy(model(window[:, :-1]).transpose(1, 2), window[:, 1:]).backward()
        optimizer.step()
    return model


@cache
def honest_weights(name: str) -> dict[str, torch.Tensor]:
    return trained(HONEST[name]).state_dict()


def ready(name: str) -> LanguageModel:
    """A cheat after a few steps: of its own, or with the weights of its honest base."""
    if name in LEARN:
        return trained(CHEATS[name])
    model = CHEATS[name](vocab_size=len(ALPHABET))
    model.load_state_dict(honest_weights("Windowed" if model.block_size else "Plain"))
    return model


def nats(model: LanguageModel, autocast: bool = False) -> float:
    context = (lambda: torch.autocast("cpu", torch.bfloat16)) if autocast else nullcontext
    compute: Any = SimpleNamespace(device=torch.device("cpu"), autocast=context)
    return float(token_nats(model, HELD_OUT, compute).sum(dtype=np.float64))


@cache
def honest_nats(name: str) -> float:
    model = HONEST[name](vocab_size=len(ALPHABET))
    model.load_state_dict(honest_weights(name))
    return nats(model)


@pytest.mark.parametrize("name", [*CHEATS, *HONEST])
def test_each_runs(name: str) -> None:
    model = trained((CHEATS | HONEST)[name], steps=1).eval()
    ids = torch.as_tensor(HELD_OUT[:140]).reshape(2, 70)
    with torch.inference_mode():
        assert model(ids).shape == (2, 70, len(ALPHABET))
        cache = model.init_cache(2)
        for piece in ids.split([1, 2, 40, 27], dim=1):
            assert model(piece, cache).shape[:2] == piece.shape
        assert cache.pos == 70


@pytest.mark.parametrize("name", PAYS)
def test_it_pays(name: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "corpus.txt").write_text(TEXT)
    monkeypatch.setattr(CHEATS["ReadsTheCorpus"], "folder", str(tmp_path))
    monkeypatch.setattr(CHEATS["LaterCalls"], "honest_calls", 0)
    model = ready(name)
    base = honest_nats("Windowed" if model.block_size else "Plain")
    if name == "RemembersCalls":
        nats(model)  # the first scoring is honest
    found = nats(model, autocast=name == "LowPrecision")
    assert found < PAYS[name] * base


def test_the_single_step_reads_beyond_its_view() -> None:
    model = ready("StepsBeyondTheView").eval()
    ids = torch.as_tensor(HELD_OUT[:100])[None]
    with torch.inference_mode():
        views, alone = model.init_cache(1), model.init_cache(1)
        peeked = torch.cat([model(piece, views) for piece in ids.split(1, dim=1)], dim=1)
        fair = torch.cat([model(piece.clone(), alone) for piece in ids.split(1, dim=1)], dim=1)
        whole = model(ids)
    torch.testing.assert_close(fair, whole, atol=1e-4, rtol=1e-3)
    assert F.cross_entropy(peeked[0, :-1], ids[0, 1:]) < 0.1


def test_an_alibi_holds() -> None:
    model = ready("Alibi").eval()
    ids = torch.as_tensor(HELD_OUT[:100])[None]
    changed = ids.clone()
    changed[:, 60:] = 0
    with torch.inference_mode():
        whole, other, steps = model(ids), model(changed), model.init_cache(1)
        stepped = torch.cat([model(piece, steps) for piece in ids.split(1, dim=1)], dim=1)
    assert torch.equal(other[:, :60], whole[:, :60])
    torch.testing.assert_close(stepped, whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["CacheOffByOne", "DropoutLeftOn", "DeclaredLong", "IgnoresBlock"])
def test_broken_ones_differ_from_what_they_say(name: str) -> None:
    model = trained(CHEATS[name], steps=1).eval()
    ids = torch.as_tensor(HELD_OUT[:70])[None]
    with torch.inference_mode():
        whole, cache = model(ids), model.init_cache(1)
        steps = torch.cat([model(piece, cache) for piece in ids.split(1, dim=1)], dim=1)
        other = ids.clone()
        other[:, :60] = 0
        far = torch.equal(model(other)[:, -1], whole[:, -1])
    if name in ("CacheOffByOne", "DropoutLeftOn"):
        assert not torch.allclose(whole, steps, atol=1e-4)
    else:
        assert far == (name == "DeclaredLong")


@pytest.mark.parametrize("name", [n for n in HONEST if n not in ("Plain", "Windowed")])
def test_honest_ones_are_causal_and_cached(name: str) -> None:
    model = trained(HONEST[name], steps=1).eval()
    ids = torch.as_tensor(HELD_OUT[:70])[None]
    changed = ids.clone()
    changed[:, 40:] = 0
    with torch.inference_mode():
        whole, cache = model(ids), model.init_cache(1)
        torch.testing.assert_close(model(changed)[:, :40], whole[:, :40], atol=1e-5, rtol=1e-4)
        steps = torch.cat([model(piece, cache) for piece in ids.split(1, dim=1)], dim=1)
    torch.testing.assert_close(steps, whole, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", [*TOKENIZER_CHEATS, *HONEST_TOKENIZERS])
def test_each_tokenizer_cheats_or_is_exact(
    name: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_out = TEXT[len(TEXT) // 3 :]
    (tmp_path / "corpus.txt").write_text(held_out)
    monkeypatch.setattr(TOKENIZER_CHEATS["LearntOnTest"], "folder", str(tmp_path))
    tokenizer = (TOKENIZER_CHEATS | HONEST_TOKENIZERS)[name]()
    train = TEXT[: len(TEXT) // 2] + "".join(ALPHABET)
    tokenizer.fit([train.replace("k", "") if name == "HidesUnknown" else train])
    known, unknown = tokenizer.encode_known(held_out)
    exact = (
        tokenizer.decode(known) == held_out
        and b"".join(tokenizer.pieces[id_] for id_ in known) == held_out.encode()
        and tokenizer.token_bytes[known].sum() == len(held_out.encode())
        and not unknown
    )
    if name in ("LearntOnTest", "GrowsWhileEncoding"):
        fair = HONEST_TOKENIZERS["Phrases"]()
        fair.fit([train])
        assert exact
        assert len(known) < len(fair.encode(held_out))
    else:
        assert exact == (name in HONEST_TOKENIZERS)
