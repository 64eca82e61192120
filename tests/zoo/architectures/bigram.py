"""The bigram's closed forms and mutants."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from tests.zoo_models import Mutant
from zoo.language_model import LanguageModel


def parameters(node: dict[str, Any], V: int) -> int:
    C = node["n_embd"]
    return V * V if C is None else 2 * V * C


def forward_flops(node: dict[str, Any], V: int, T: int) -> float:
    return 2 * T * V * (node["n_embd"] or 0)  # a look-up alone costs nothing


def _declares_two(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model.receptive_field = 2


def _unsaved(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = random.random()
    model.head.forward = lambda logits: logits * noise  # type: ignore[method-assign]


def _frozen(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    table = model.table
    table.forward = lambda ids: table.weight.detach()[ids]  # type: ignore
    model.bias = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    model.head.forward = lambda logits: logits + model.bias  # type: ignore


def _drops_batch(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model.head.forward = lambda logits: logits.squeeze(0)  # type: ignore[method-assign]


MUTANTS = [
    Mutant("declares two tokens", "receptive_field", "bigram", _declares_two),
    Mutant("a weight outside the state", "saving", "bigram", _unsaved),
    Mutant("a table cut off from the loss", "gradient", "bigram", _frozen),
    Mutant("a table that can't learn", "overfitting", "bigram", _frozen),
    Mutant("a batch of one loses its dimension", "shape_and_dtype", "bigram", _drops_batch),
]
