"""The hierarchical network against the lectures' form of it: a window of embeddings, flattened in
pairs, layer by layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.cli.hydra_app import compose
from harness.config.settings import read_settings
from tests.zoo.laws import LAWS
from tests.zoo_models import VOCAB, fresh, maker, node, random_ids, randomize, weightless
from zoo.hierarchical import Hierarchical

SIZES = ("model.n_layer=3", "model.n_embd=5", "model.n_hidden=7")
OPTIONS = [
    ("model.norm=batch_norm", "model.bias=false"),
    ("model.norm=layer_norm",),
    ("model.n_layer=1",),
]


def flattened_in_pairs(model: Hierarchical, window_BWC: Tensor) -> Tensor:
    """The logits of one window of embeddings each, (B, V): reshaped to half as many vectors of
    twice the width, mapped, normalized, tanh, until one is left."""
    x_BWC = window_BWC
    for layer, norm in zip(model.layers, model.norms, strict=True):
        batch, places, width = x_BWC.shape
        x_BWC = torch.tanh(norm(layer(x_BWC.view(batch, places // 2, 2 * width))))
    assert x_BWC.shape[1] == 1
    return model.head(x_BWC[:, 0])


@pytest.mark.parametrize("options", [(), *OPTIONS], ids=" ".join)
def test_equals_pairs_flattened_in_each_window(options: tuple[str, ...]) -> None:
    model = randomize(fresh(node("hierarchical", *SIZES, *options)).double().eval())
    ids_BT, context = random_ids(2, 13), model.receptive_field
    with torch.no_grad():
        logits_BTV = model(ids_BT)
        x_BSC = F.pad(model.token_embedding(ids_BT), (0, 0, context - 1, 0))
        for last in range(13):
            expected = flattened_in_pairs(model, x_BSC[:, last : last + context].contiguous())
            torch.testing.assert_close(logits_BTV[:, last], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("law", ["causality", "split", "receptive_field"])
@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_law_with_options(law: str, options: tuple[str, ...]) -> None:
    LAWS[law](maker("hierarchical", *options))


@pytest.mark.parametrize(
    ("experiment", "parameters", "receptive_field"),
    [
        # The lectures' have batch normalization: two numbers a unit in place of a bias.
        ("names_mlp", 12_097 - 200, 3), ("names_mlp_8", 22_097 - 200, 8),
        ("names_hierarchical", 22_397 - 3 * 68, 8),
        ("names_hierarchical_76k", 76_579 - 3 * 128, 8),
        ("names_transformer", 204_544, None), ("names_rnn", 11_803, None),
        ("names_gru", 28_315 + 128, None),  # torch's has two biases a gate; theirs learns its start
    ],
)  # fmt: skip
def test_recipes_have_makemore_s_parameters(
    experiment: str, parameters: int, receptive_field: int | None
) -> None:
    settings = read_settings(compose([f"experiment={experiment}"]))
    model = weightless(settings.model, 27)
    assert sum(p.numel() for p in model.parameters()) == parameters
    if receptive_field is not None:
        assert model.receptive_field == receptive_field


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n_layer": 0}, "n_layer=0"),
        ({"n_hidden": 0}, "n_hidden=0"),
        ({"norm": "batch_norm"}, "bias=false"),
    ],
)
def test_refuses(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Hierarchical(VOCAB, **({"n_layer": 2, "n_embd": 4, "n_hidden": 4} | changed))
