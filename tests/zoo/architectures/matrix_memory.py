"""What the architectures with a matrix for a state have in common: FLOPs of one chunk, and
mutants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.zoo_models import Mutant
from zoo.language_model import Cache, LanguageModel
from zoo.layers import matrix_memory


def zeroed(name: str) -> Callable[[LanguageModel, pytest.MonkeyPatch], None]:
    """A mutant whose state called `name` is zero before each call."""

    def apply(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
        features = model.features

        def changed(ids: Tensor, cache: Cache | None = None, *wanted: Any) -> Tensor:
            if cache is not None:
                cache.tensors[name] = torch.zeros_like(cache.tensors[name])
            return features(ids, cache, *wanted)

        model.features = changed  # type: ignore[method-assign]

    return apply


def _unmasked(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def between(total: Tensor) -> Tensor:
        return (total[..., :, None] - total[..., None, :]).exp()

    monkeypatch.setattr(matrix_memory, "_decay_between", between)


def mutants(model: str, state: str) -> list[Mutant]:
    return [
        Mutant("the state not kept", "split", model, zeroed(state)),
        Mutant("the decay unmasked", "causality", model, _unmasked),
    ]
