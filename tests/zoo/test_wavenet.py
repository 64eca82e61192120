"""WaveNet against a computation by hand, position by position; the notes' nets; its decoding."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from harness.cli.hydra_app import compose
from harness.compute.costs import forward_flops
from harness.config.settings import read_settings
from tests.zoo.laws import LAWS
from tests.zoo_models import VOCAB, fresh, maker, node, random_ids, randomize
from zoo.language_model import LanguageModel
from zoo.layers.causal_conv import CausalConv1d, LastInputs
from zoo.wavenet import WaveNet

NARROW = [
    "model.n_embd=6",
    "model.channels_residual=6",
    "model.channels_gate=5",
    "model.channels_skip=4",
]
NOTES = ["model.gate=linear", "model.skips=mean", "model.output=one_layer"]
WITH_HOLES = ["model.kernel_sizes=[3,1,2]", "model.dilations=[2,4,7]", "model.n_stack=1"]
OPTIONS = [
    ["model.n_embd=3", "model.dilations=[1,3,2,1,5]"],
    ["model.kernel_sizes=[3,1,2]", "model.dilations=[1,4,3]", "model.n_stack=1"],
    WITH_HOLES,
    ["model.initial_conv=null", "model.norm=layer_norm", "model.n_stack=1"],
    ["model.initial_conv=4", "model.norm=batch_norm", "model.skips=mean", "model.n_stack=1"],
    ["model.initial_conv=1", "model.norm=rms_norm", "model.gate=linear", "model.n_stack=1"],
    [*NOTES, "model.kernel_sizes=[1,2,4,8]", "model.dilations=[2,2,2,2]", "model.n_stack=1"],
]
composed_once = cache(maker)


def by_hand(model_node: dict[str, Any], weights: dict[str, Tensor], ids: list[int]) -> Tensor:
    """The logits at every position, (T, V), from the paper's formulas."""

    def linear(name: str, x_C: Tensor) -> Tensor:
        return weights[f"{name}.weight"] @ x_C + weights[f"{name}.bias"]

    def convolve(name: str, x: list[Tensor], dilation: int, t: int) -> Tensor:
        """Σ over the kernel, its last tap at t, each one before `dilation` earlier."""
        kernel = weights[f"{name}.conv.weight"]
        y = weights[f"{name}.conv.bias"].clone()
        for tap in range(kernel.shape[2]):
            source = t - (kernel.shape[2] - 1 - tap) * dilation
            if source >= 0:
                y = y + kernel[:, :, tap] @ x[source]
        return y

    def normalize(name: str, x_C: Tensor) -> Tensor:
        if model_node["norm"] is None:
            return x_C
        scale = weights[f"{name}.weight"]
        if model_node["norm"] == "rms_norm":
            return scale * x_C / (x_C.square().mean() + 1e-5).sqrt()
        mean, variance = x_C.mean(), x_C.var(correction=0)
        if model_node["norm"] == "batch_norm":
            mean, variance = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
        return scale * (x_C - mean) / (variance + 1e-5).sqrt() + weights[f"{name}.bias"]

    layers = zip(model_node["kernel_sizes"], model_node["dilations"], strict=True)
    dilations = [dilation for _, dilation in layers] * model_node["n_stack"]
    times = range(len(ids))
    x = [weights["token_embedding.weight"][token] for token in ids]
    if model_node["initial_conv"]:
        x = [convolve("initial_conv", x, 1, t) for t in times]
    total = [torch.zeros(model_node["channels_skip"], dtype=torch.float64) for _ in ids]
    for layer, dilation in enumerate(dilations):
        block = f"blocks.{layer}"
        inputs = [normalize(f"{block}.norm", x_C) for x_C in x]
        for t in times:
            y = convolve(f"{block}.conv", inputs, dilation, t)
            filtered, gate = y[: len(y) // 2], y[len(y) // 2 :]
            if model_node["gate"] == "tanh":
                filtered = filtered.tanh()
            z = filtered / (1 + (-gate).exp())
            total[t] = total[t] + linear(f"{block}.skip", z)
            if layer < len(dilations) - 1:
                x[t] = x[t] + linear(f"{block}.residual", z)
    if model_node["skips"] == "mean":
        total = [skips / len(dilations) for skips in total]
    if model_node["output"] == "two_layers":
        total = [linear("output.1", skips.clamp(min=0)).clamp(min=0) for skips in total]
    else:
        total = [torch.where(skips > 0, skips, 0.01 * skips) for skips in total]
    return torch.stack([linear("head", skips) for skips in total])


@torch.no_grad()
def assert_equal_by_hand(options: list[str], model: LanguageModel | None = None) -> None:
    model_node = node("wavenet", *NARROW, *options)
    model = model or randomize(fresh(model_node).double().eval())
    ids = random_ids(2, 30)
    for row, logits in zip(ids.tolist(), model(ids), strict=True):
        expected = by_hand(model_node, model.state_dict(), row)
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("options", [[], *OPTIONS], ids=" ".join)
def test_equals_the_formula(options: list[str]) -> None:
    assert_equal_by_hand(options)


def test_the_formula_tells_orders_of_dilations_apart() -> None:
    """No law does: parameters, costs and the receptive field are the same."""
    reversed_order = node("wavenet", *NARROW, "model.dilations=[16,8,4,2,1]")
    with pytest.raises(AssertionError):
        assert_equal_by_hand([], randomize(fresh(reversed_order).double().eval()))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_law_with_options(law: str, options: list[str]) -> None:
    width = [] if law == "overfitting" else NARROW
    LAWS[law](composed_once("wavenet", *width, *options))


def test_holes_are_declared_as_they_are() -> None:
    make = composed_once("wavenet", *NARROW, *WITH_HOLES)
    assert make().unseen == {7}  # 1 + {0, 1} + {0, 2, 4} + {0, 7}
    for declared, words in (
        (frozenset(), "blind to the token 7 back"),
        (frozenset({6, 7}), "reads 6 tokens back, and declares that unseen"),
    ):
        model = make()
        model.unseen = declared
        with pytest.raises(AssertionError, match=words):
            LAWS["receptive_field"](lambda: model)  # noqa: B023 - called at once


def test_costs_with_options() -> None:
    from tests.zoo.architectures import wavenet

    for options in [*OPTIONS, ["model.last_residual=true"]]:
        model_node = node("wavenet", *NARROW, *options)
        counted = sum(p.numel() for p in fresh(model_node).parameters())
        assert counted == wavenet.parameters(model_node, VOCAB), options
        if "model.last_residual=true" not in options:
            flops = forward_flops(lambda: fresh(model_node), 64)  # noqa: B023 - called at once
            assert flops == wavenet.forward_flops(model_node, VOCAB, 64), options


# The study notes' nets


@pytest.mark.parametrize(
    ("experiment", "options", "parameters", "receptive_field"),
    [
        ("seed_wavenet", [], 234_135_354, 17),
        ("seed_wavenet", ["model.initial_conv=null"], 234_135_354 - 2 * 2048**2 - 2048, 16),
        ("seed_wavenet_as_built", [], 292_855_610, 24),
    ],
)
def test_seed_wavenet(
    experiment: str, options: list[str], parameters: int, receptive_field: int
) -> None:
    def read(*more: str) -> dict[str, Any]:
        return read_settings(compose([f"experiment={experiment}", *options, *more])).model

    with torch.device("meta"):
        model = fresh(read(), vocab_size=30522)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model.receptive_field == receptive_field
    width = {key: 8 for key in read() if key.startswith("channels_") or key == "n_embd"}
    narrow = read(*(f"model.{key}={value}" for key, value in width.items()))

    def make() -> LanguageModel:
        return randomize(fresh(narrow).double().eval())

    assert make().receptive_field == receptive_field
    LAWS["receptive_field"](make)
    LAWS["split"](make)


# Decoding


class Allocated(TorchDispatchMode):
    """Counts the elements of every new tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):  # noqa: ANN204
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and not func._schema.is_mutable and not func.is_view:
            self.numel += out.numel()
        return out


def test_a_token_costs_the_same_however_far_the_taps_reach() -> None:
    """Paine's point: the cache is read at the taps, and written at one place."""

    def cost(dilation: int) -> int:
        conv = CausalConv1d(4, 6, kernel_size=3, dilation=dilation)
        past = LastInputs(conv.empty(2), pos=5000)
        with Allocated() as allocated, torch.no_grad():
            conv(torch.randn(2, 1, 4), past)
        return allocated.numel

    assert cost(1) == cost(1000) > 0


def test_a_token_costs_the_same_however_many_came_before() -> None:
    model = maker("wavenet", *NARROW)()

    def cost(pos: int) -> int:
        cache = model.init_cache(2)
        cache.pos = pos
        with Allocated() as allocated, torch.no_grad():
            model(random_ids(2, 1), cache)
        return allocated.numel

    assert cost(3) == cost(100_000) > 0


def test_the_cache_holds_what_the_taps_reach_and_no_more() -> None:
    model_node = node("wavenet")
    cache = fresh(model_node).init_cache(3)
    reach = (model_node["initial_conv"] - 1) + sum(
        (kernel_size - 1) * dilation
        for kernel_size, dilation in zip(
            model_node["kernel_sizes"] * 2, model_node["dilations"] * 2, strict=True
        )
    )
    assert cache.nbytes == 3 * reach * model_node["channels_residual"] * 4


@torch.no_grad()
@pytest.mark.parametrize("kernel_size", [1, 2, 3, 5])
@pytest.mark.parametrize("dilation", [1, 2, 7])
def test_convolution_equals_torchs(kernel_size: int, dilation: int) -> None:
    """Cut anywhere, too, in chunks shorter and longer than the dilation."""
    conv = CausalConv1d(3, 4, kernel_size, dilation).double()
    x_BTC = torch.randn(2, 33, 3, dtype=torch.float64)
    expected = torch.nn.functional.conv1d(
        x_BTC.transpose(1, 2), conv.conv.weight, conv.conv.bias,
        dilation=dilation, padding=(kernel_size - 1) * dilation,
    )[:, :, :33].transpose(1, 2)  # fmt: skip
    torch.testing.assert_close(conv(x_BTC), expected, rtol=0, atol=1e-12)
    for length in (1, 2, 3, 8, 20, 33):
        ring, chunks = conv.empty(2), x_BTC.split(length, dim=1)
        joined = torch.cat(
            [conv(chunk, LastInputs(ring, i * length)) for i, chunk in enumerate(chunks)], dim=1
        )
        torch.testing.assert_close(joined, expected, rtol=0, atol=1e-12)


def test_decodes_under_autocast() -> None:
    """And the residual stream keeps full precision, as a transformer's does."""
    model = maker("wavenet", *NARROW)().float()
    stream: list[torch.dtype] = []
    for block in model.blocks:
        block.register_forward_pre_hook(lambda module, inputs: stream.append(inputs[0].dtype))
    model.output.register_forward_pre_hook(lambda module, inputs: stream.append(inputs[0].dtype))
    ids = random_ids(2, 40)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        cache = model.init_cache(2)
        steps = [model(ids[:, [t]], cache) for t in range(40)]
        torch.testing.assert_close(torch.cat(steps, 1), model(ids), rtol=0.05, atol=0.1)
    assert set(stream) == {torch.float32}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kernel_sizes": [2, 0]}, "kernel_size=0"),
        ({"dilations": [0, 1]}, "dilation=0"),
        ({"dilations": [1]}, "same layers"),
        ({"kernel_sizes": [], "dilations": []}, "layers=0"),
        ({"n_stack": 0}, "n_stack=0"),
        ({"initial_conv": 0}, "initial_conv=0"),
        ({"channels_gate": 0}, "channels_gate=0"),
        ({"initial_conv": None, "n_embd": 5}, "n_embd=5 must equal channels_residual=4"),
        ({"gate": "relu"}, "gate='relu'"),
        ({"skips": "max"}, "skips='max'"),
        ({"output": "none"}, "output='none'"),
        ({"norm": "group_norm"}, "norm='group_norm'"),
    ],
)
def test_refuses(changed: dict[str, Any], message: str) -> None:
    settings: dict[str, Any] = dict.fromkeys(
        ("n_embd", "channels_residual", "channels_gate", "channels_skip"), 4
    )
    settings |= {"kernel_sizes": [2, 2], "dilations": [1, 2]}
    with pytest.raises(ValueError, match=message):
        WaveNet(VOCAB, **(settings | changed))
