"""The MLP against a computation by hand, position by position, and its costs and refusals."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from harness.cli.hydra_app import compose
from harness.config.build import build_object
from harness.config.settings import read_settings
from tests.zoo.laws import LAWS
from tests.zoo_models import VOCAB, fresh, maker, node, random_ids, randomize
from zoo.language_model import LanguageModel
from zoo.mlp import MLP

C, H, N = 5, 7, 4
SIZES = [
    f"model.{key}={value}" for key, value in {"context": N, "n_embd": C, "n_hidden": H}.items()
]
OPTIONS = [
    ["model.n_layer=1"],
    ["model.n_layer=3", "model.activation=gelu"],
    ["model.context=1", "model.activation=relu"],
    ["model.n_layer=1", "model.activation=leaky_relu", "model.bias=false", "model.direct=true"],
    ["model.norm=batch_norm", "model.bias=false", "model.direct=true"],
    ["model.norm=layer_norm"],
    ["model.norm=rms_norm", "model.bias=false"],
]
composed_once = cache(maker)
ACTIVATIONS = {
    "tanh": math.tanh,
    "relu": lambda x: max(x, 0.0),
    "leaky_relu": lambda x: x if x > 0 else 0.01 * x,
    "gelu": lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))),
}


def by_hand(model_node: dict[str, Any], weights: dict[str, Tensor], ids: list[int]) -> Tensor:
    """The logits at the last of `ids`, from Bengio's formula."""
    context, width = model_node["context"], model_node["n_embd"]
    flat = []  # oldest first
    for position in range(len(ids) - context, len(ids)):
        known = position >= 0
        flat += (
            weights["token_embedding.weight"][ids[position]].tolist() if known else [0.0] * width
        )
    h = flat
    for layer in range(model_node["n_layer"]):
        name = "window" if layer == 0 else f"hidden.{layer - 1}"
        matrix = weights[f"{name}.weight"]
        if layer == 0:
            # Kept as a kernel (out, channel, place in the window).
            matrix = matrix.transpose(1, 2).reshape(len(matrix), -1)
        h = [sum(w * x for w, x in zip(row, h, strict=True)) for row in matrix.tolist()]
        if model_node["bias"]:
            h = [x + b for x, b in zip(h, weights[f"{name}.bias"].tolist(), strict=True)]
        h = normalized(model_node["norm"], h, weights, f"norms.{layer}")
        h = [ACTIVATIONS[model_node["activation"]](x) for x in h]
    rows = weights["head.weight"].tolist()
    logits = []
    for row, bias in zip(rows, weights["head.bias"].tolist(), strict=True):
        logit = bias + sum(w * x for w, x in zip(row, h, strict=False))
        if model_node["direct"]:
            for place in range(context):
                for channel in range(width):
                    weight = row[len(h) + channel * context + place]
                    logit += weight * flat[place * width + channel]
        logits.append(logit)
    return torch.tensor(logits, dtype=torch.float64)


def normalized(
    norm: str | None, h: list[float], weights: dict[str, Tensor], name: str
) -> list[float]:
    if norm is None:
        return h
    scale = weights[f"{name}.weight"].tolist()
    if norm == "rms_norm":
        rms = math.sqrt(sum(x * x for x in h) / len(h) + 1e-5)
        return [s * x / rms for s, x in zip(scale, h, strict=True)]
    if norm == "layer_norm":
        mean = [sum(h) / len(h)] * len(h)
        variance = [sum((x - mean[0]) ** 2 for x in h) / len(h)] * len(h)
    else:
        mean = weights[f"{name}.running_mean"].tolist()
        variance = weights[f"{name}.running_var"].tolist()
    shift = weights[f"{name}.bias"].tolist()
    columns = zip(scale, shift, h, mean, variance, strict=True)
    return [s * (x - m) / math.sqrt(v + 1e-5) + b for s, b, x, m, v in columns]


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_equals_the_formula(options: list[str]) -> None:
    model_node = node("mlp", *SIZES, *options)
    model = randomize(fresh(model_node).double().eval())
    ids = random_ids(2, 7)
    with torch.no_grad():
        logits = model(ids)
    for row in range(2):
        for last in range(7):
            expected = by_hand(model_node, model.state_dict(), ids[row, : last + 1].tolist())
            torch.testing.assert_close(logits[row, last], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_law_with_options(law: str, options: list[str]) -> None:
    if law == "overfitting" and "model.context=1" in options:
        pytest.skip("the text to learn needs two tokens of context")
    LAWS[law](composed_once("mlp", *options))


def test_parameters_with_options() -> None:
    from tests.zoo.architectures import mlp

    for options in OPTIONS:
        model_node = node("mlp", *options)
        counted = sum(p.numel() for p in fresh(model_node).parameters())
        assert counted == mlp.parameters(model_node, VOCAB), options


def test_seed_mlp_has_the_notes_parameters() -> None:
    settings = read_settings(compose(["experiment=seed_mlp"]))
    with torch.device("meta"):
        model = build_object(settings.model, LanguageModel, "model", vocab_size=50281)
    assert sum(p.numel() for p in model.parameters()) == 20_562_681
    assert model.receptive_field == settings.train.seq_len == 10


def test_windows_are_not_copied() -> None:
    """No tensor on the way holds each embedding once for every window it is in."""

    class Largest(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):  # noqa: ANN204
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor):
                self.numel = max(self.numel, out.untyped_storage().nbytes() // out.itemsize)
            return out

    batch, time, context, width = 3, 50, 20, 16
    sizes = {"context": context, "n_layer": 1, "n_embd": width, "n_hidden": 8}
    with Largest() as largest, torch.no_grad():
        MLP(VOCAB, **sizes)(random_ids(batch, time), return_features=True)
    assert largest.numel <= batch * (time + context - 1) * width
    with Largest() as largest, torch.no_grad():
        MLP(VOCAB, **sizes, direct=True)(random_ids(batch, time), return_features=True)
    assert largest.numel <= batch * time * (context * width + 8)  # one copy, for the head


def test_first_loss_is_ln_v() -> None:
    torch.manual_seed(0)
    for options in OPTIONS:
        model = fresh(node("mlp", *options), 1000)
        logits = model(random_ids(8, 32, vocab_size=1000))
        assert -logits.log_softmax(-1).mean().item() == pytest.approx(math.log(1000), abs=0.05)


def test_batch_norm_learns_statistics_of_all_positions() -> None:
    torch.manual_seed(0)
    model = MLP(VOCAB, 2, 1, 3, 4, bias=False, norm="batch_norm").double().train()
    seen: list[Tensor] = []
    model.norms[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(random_ids(5, 6))
    examples = seen[0].reshape(30, 4)
    torch.testing.assert_close(model.norms[0].running_mean, 0.1 * examples.mean(0))
    torch.testing.assert_close(
        model.norms[0].running_var, 0.9 + 0.1 * examples.var(0, unbiased=True)
    )


def test_decodes_under_autocast() -> None:
    model = maker("mlp", "model.norm=batch_norm", "model.bias=false", "model.direct=true")().float()
    ids = random_ids(2, 20)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        cache = model.init_cache(2)
        steps = [model(ids[:, [t]], cache) for t in range(20)]
        torch.testing.assert_close(torch.cat(steps, 1), model(ids), rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"context": 0}, "context=0"),
        ({"n_layer": 0}, "n_layer=0"),
        ({"n_embd": 0}, "n_embd=0"),
        ({"n_hidden": -1}, "n_hidden=-1"),
        ({"activation": "sine"}, "activation='sine'"),
        ({"norm": "batch_norm"}, "bias=false"),
        ({"norm": "group_norm"}, "norm='group_norm'"),
    ],
)
def test_refuses(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MLP(VOCAB, **({"context": 4, "n_layer": 1, "n_embd": 4, "n_hidden": 4} | changed))
