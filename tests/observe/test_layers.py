"""Which layers are watched, and under which names."""

from __future__ import annotations

import math

import pytest
import torch

from harness.common.errors import UsageError
from harness.common.rows import Histogram
from harness.compute.device import Compute
from harness.config.settings import ObserveSettings
from tests.observe.watching import chosen, looked_at, names
from tests.zoo_models import TRAINED, fresh, maker, node, of_each_kind


def test_a_transformers_layers_have_the_names_of_its_parts() -> None:
    row = looked_at(maker("gpt", "model.n_layer=1")())
    assert names(row, "activations/", "/mean") == [
        "token_embedding",
        "position_embedding",
        "blocks.0.attention_norm",
        "blocks.0.attention.qkv",
        "blocks.0.attention.projection",
        "blocks.0.feed_forward_norm",
        "blocks.0.feed_forward.expand",
        "blocks.0.feed_forward.gelu",
        "blocks.0.feed_forward.projection",
        "blocks.0",
        "norm",
    ]
    assert names(row, "attention/", "/entropy/0") == ["blocks.0.attention"]


@pytest.mark.parametrize(
    ("name", "options", "heads"),
    [("gpt", ["model.n_layer=2"], 8), ("megabyte", ["train.seq_len=32"], 16)],
)
def test_attention_is_seen_in_every_precision(name: str, options: list[str], heads: int) -> None:
    """In bf16 on a CPU over few keys it is computed by its parts, within segments too: the same
    heads, nearly the same entropies."""
    model = fresh(node(name, *options))
    wide, half = (
        {name: value for name, value in row.items() if name.startswith("attention/")}
        for row in (
            looked_at(model),
            looked_at(model, compute=Compute(torch.device("cpu"), "bf16")),
        )
    )
    assert len(wide) == heads
    assert half == pytest.approx(wide, rel=0.02)


def test_basic_watches_nonlinearities_blocks_and_matrices_in_numbers() -> None:
    model = maker("gpt", "model.n_layer=1")()
    row = looked_at(model, "observe.full=false")
    assert names(row, "activations/", "/mean") == [
        "blocks.0.feed_forward.gelu",
        "blocks.0",
        "features",
    ]
    assert names(row, "weights/", "/norm") == [
        name for name, parameter in model.named_parameters() if parameter.dim() > 1
    ]
    assert all(isinstance(value, (int, float)) for value in row.values())


@pytest.mark.parametrize("name", of_each_kind(TRAINED))
def test_every_architecture_can_be_watched(name: str) -> None:
    """Without a line of its own: layers and parameters all have finite numbers, heads entropies."""
    model = fresh(node(name, "train.seq_len=32"))
    row, again = looked_at(model), looked_at(model)
    assert list(row) == list(again)
    assert row == again, "watching changed the model"
    parameters = [parameter for parameter, _ in model.named_parameters()]
    assert names(row, "weights/", "/norm") == parameters
    for place in (layers := names(row, "activations/", "/mean")):
        assert isinstance(row[f"activations/{place}/histogram"], Histogram)
    assert layers
    numbers = [value for value in row.values() if not isinstance(value, Histogram)]
    assert all(math.isfinite(value) for value in numbers)
    heads = {
        "megabyte": 16, "perceiver_ar": 16, "hf": 48, "ladder": 12, "gated_deltanet_hybrid": 4,
        "spacebyte": 24, "hnet": 12,
    }  # fmt: skip
    attentive = name.startswith(("gpt", "llama", "mistral"))
    expected = heads.get(name, 16 if attentive else 0)
    entropies = [value for key, value in row.items() if key.startswith("attention/")]
    assert len(entropies) == expected
    assert all(0 <= entropy <= math.log(17) for entropy in entropies)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mlp", ["tanh", "tanh.2"]),
        ("bow", ["tanh"]),
        ("rnn", ["layers.0", "layers.1"]),
        ("wavenet", [f"blocks.{n}.{f}" for n in range(10) for f in ("tanh", "sigmoid")]),
    ],
)
def test_nonlinearities_are_found_as_functions_and_as_modules(
    name: str, expected: list[str]
) -> None:
    row = looked_at(fresh(node(name)))
    assert names(row, "activations/", "/saturation") == expected
    assert names(row, "gates/", "/openness") == [n for n in expected if n.endswith("sigmoid")]
    assert ("output.0" in names(row, "activations/", "/inactive")) == (name == "wavenet")


def test_the_settings() -> None:
    assert chosen().observe == ObserveSettings(every=100, full=False)
    assert chosen("observe=off").observe == ObserveSettings(every=None, full=False)
    assert chosen("observe=full", "observe.every=7").observe == ObserveSettings(every=7, full=True)
    for wrong in ("observe=ful", "observe.every=0", "observe.every=often", "observe.eveyr=1"):
        with pytest.raises((UsageError, Exception), match="observe"):
            chosen(wrong)
