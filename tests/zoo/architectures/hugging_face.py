"""The closed forms of conf/model/hf.yaml, which is GPT-2, and mutants of the wrapper."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from tests.zoo_models import Mutant
from zoo.hugging_face import ObjectCache
from zoo.language_model import LanguageModel


def parameters(node: dict[str, Any], V: int) -> int:
    C, L, T = node["config"]["hidden_size"], node["config"]["num_hidden_layers"], node["block_size"]
    return V * C + T * C + L * (12 * C * C + 13 * C) + 2 * C


def forward_flops(node: dict[str, Any], V: int, T: int) -> float:
    C, L = node["config"]["hidden_size"], node["config"]["num_hidden_layers"]
    return 2 * T * (12 * L * C * C + V * C) + 4 * L * T * T * C


def _past_is_dropped(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        ObjectCache, "store", lambda self, state: vars(self).update(state=None, tensors={})
    )


def _rows_stay(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ObjectCache, "select", lambda self, rows: self)


def _recomputes_from_the_start(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model.uses_cache = False
    run = model._run

    def first(ids: Tensor, *past: Any, **options: Any) -> tuple[Tensor, Any]:
        return run(ids, *past, **options)[0].roll(1, dims=1), None

    model._run = first  # type: ignore[method-assign]


MUTANTS = [
    Mutant("the past is dropped", "split", "hf", _past_is_dropped),
    Mutant("rows not reordered", "split", "hf", _rows_stay),
    Mutant("positions out of order", "split", "hf", _recomputes_from_the_start),
]
