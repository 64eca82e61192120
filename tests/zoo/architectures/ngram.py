"""The n-gram's closed forms and mutants; tests/zoo/test_ngram.py has those of its probabilities."""

from __future__ import annotations

import random
from typing import Any

import pytest
from torch import Tensor

from tests.zoo_models import Mutant
from zoo.language_model import Cache, LanguageModel


def parameters(node: dict[str, Any], V: int) -> int:
    return 0


def forward_flops(node: dict[str, Any], V: int, T: int) -> float:
    return 0  # look-ups


def _declares_order(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model.receptive_field = model.order


def _past_too_short(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    features = model.features

    def forgetful(ids: Tensor, cache: Cache | None = None) -> Tensor:
        if cache is not None:
            cache.tensors["past"] = cache.tensors["past"][:, -(model.order - 3) :]
        return features(ids, cache)

    model.features = forgetful  # type: ignore[method-assign]


def _unsaved(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    sharpness, forward = random.random(), model.head.forward
    model.head.forward = lambda contexts: sharpness * forward(contexts)  # type: ignore


def _sees_the_next(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    features = model.features
    model.features = lambda ids, cache=None: features(ids, cache).roll(-1, 1)  # type: ignore


MUTANTS = [
    Mutant("declares one token more", "receptive_field", "ngram", _declares_order),
    Mutant("the past too short", "split", "ngram", _past_too_short),
    Mutant("a number outside the state", "saving", "ngram", _unsaved),
    Mutant("contexts that end one token late", "causality", "ngram", _sees_the_next),
]
