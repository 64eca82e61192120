"""SpaceByte's closed forms and mutants."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.zoo_models import Mutant
from zoo.language_model import Cache, LanguageModel

# The laws' ids are below the digits, where all bytes are space-like: others begin a step here.
SPACES = ("model.spacelike=[3,5,8,13,21]", "train.seq_len=24", "model.n_global=9")


def _steps(node: dict[str, Any]) -> int:
    return node["n_global"] or max(1, node["block_size"] // 4)


def parameters(node: dict[str, Any], V: int) -> int:
    C, D, bias = node["n_embd_local"], node["n_embd_global"], int(node["bias"])

    def blocks(layers: int, width: int, heads: int) -> int:
        norms = 2 * (width + width * bias) + 2 * width // heads
        return layers * (12 * width**2 + 9 * width * bias + norms)

    tables = V * C + node["block_size"] * C + _steps(node) * D
    local = blocks(node["n_layer_local"], C, node["n_head_local"])
    head = 0 if node["tie_weights"] else V * C
    return (
        tables + local + blocks(node["n_layer_global"], D, node["n_head_global"])
        + C + C * bias + head
    )  # fmt: skip


def forward_flops(node: dict[str, Any], V: int, T: int) -> float:
    """As many global steps as a window may have, whatever the text is."""
    C, D, K = node["n_embd_local"], node["n_embd_global"], min(_steps(node), T)
    local = node["n_layer_local"] * (24 * T * C * C + 4 * T * T * C)
    return local + node["n_layer_global"] * (24 * K * D * D + 4 * K * K * D) + 2 * T * V * C


def _begins_before_the_space(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step at the last byte of a word: where the word ends is known one byte later."""
    due = model._due

    def ahead(ids_BT: Tensor, past: int, cache: Cache | None) -> Tensor:
        due_BT = due(ids_BT, past, cache).roll(-1, 1)
        due_BT[:, -1] = False
        return due_BT

    model._due = ahead  # type: ignore[method-assign]


def _reads_the_next_byte(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The right steps, which take what comes behind them."""
    steps = model._steps
    model._steps = lambda x, due, cache: steps(x.roll(-1, 1), due, cache)  # type: ignore


def _whole_words(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step is due behind the last of several space-like bytes, which is known a byte later."""

    def due(ids_BT: Tensor, past: int, cache: Cache | None) -> Tensor:
        space_BT = model.spacelike[ids_BT]
        ends_BT = torch.cat([~space_BT[:, 1:], torch.ones_like(space_BT[:, :1])], dim=1)
        return space_BT & ends_BT

    model._due = due  # type: ignore[method-assign]


def _word_across_the_cut(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new call forgets whether the last byte was space-like."""
    due = model._due

    def forgetful(ids_BT: Tensor, past: int, cache: Cache | None) -> Tensor:
        if cache is not None:
            cache.tensors["after_space"].zero_()
        return due(ids_BT, past, cache)

    model._due = forgetful  # type: ignore[method-assign]


def _counts_calls(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of a step in its call, not in its text."""
    steps = model._steps

    def anew(x_BTC: Tensor, due_BT: Tensor, cache: Cache | None) -> Tensor:
        if cache is not None:
            cache.tensors["steps"] = torch.zeros_like(cache.tensors["steps"])
        return steps(x_BTC, due_BT, cache)

    model._steps = anew  # type: ignore[method-assign]


def _rows_in_step(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """One count for all rows of a batch, whose words begin at different places."""
    steps = model._steps

    def together(x_BTC: Tensor, due_BT: Tensor, cache: Cache | None) -> Tensor:
        added_BTC = steps(x_BTC, due_BT, cache)
        if cache is not None:
            steps_B = cache.tensors["steps"]
            cache.tensors["steps"] = steps_B.max().expand_as(steps_B).clone()
        return added_BTC

    model._steps = together  # type: ignore[method-assign]


def _no_steps(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model._steps = lambda x_BTC, due_BT, cache: torch.zeros_like(x_BTC)  # type: ignore


MUTANTS = [
    Mutant("begins before the space", "causality", "spacebyte", _begins_before_the_space, SPACES),
    Mutant("reads the next byte", "causality", "spacebyte", _reads_the_next_byte, SPACES),
    Mutant("whole words", "causality", "spacebyte", _whole_words, SPACES),
    Mutant("a word across the cut", "split", "spacebyte", _word_across_the_cut, SPACES),
    Mutant("steps numbered by the call", "split", "spacebyte", _counts_calls, SPACES),
    Mutant("rows in step", "split", "spacebyte", _rows_in_step, SPACES),
    Mutant("no steps", "gradient", "spacebyte", _no_steps, SPACES),
]
