"""The schemes that weights can begin with, against their definitions, on every architecture."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from harness.common.errors import UsageError
from harness.config.settings import Init
from tests.small_runs import GPT_SMALL, rows, train
from tests.zoo_models import TRAINED, fresh, node, random_ids
from zoo.initialization import SCHEMES, initialize, residual_maps
from zoo.language_model import LanguageModel
from zoo.layers.causal_conv import FilterPerChannel
from zoo.roles import roles

# Which of the zoo's models have a residual stream, and how many maps lead into it.
MAPS = {
    "bow": 1, "gpt": 8, "gpt1": 8, "gpt3": 8, "gpt_modern": 8, "gpt_moe": 8, "ladder": 6,
    "llama": 8, "megabyte": 8, "mistral": 8, "perceiver_ar": 8, "wavenet": 9,
    "mamba2": 4, "gated_deltanet": 6, "gated_deltanet_hybrid": 8, "mlstm": 8, "rwkv7": 6,
    "spacebyte": 12, "hnet": 10,
}  # fmt: skip
TRAIN = (*GPT_SMALL, "train.steps=1")


class Parts(nn.Module):
    """A weight of every kind, large enough to tell one distribution from another."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(300, 40)
        self.conv = nn.Conv1d(40, 90, 3)
        self.recurrent = nn.GRU(40, 60)
        self.blocks = nn.ModuleList(nn.Linear(90, 150) for _ in range(3))
        self.projection = nn.Linear(200, 90)
        self.norm = nn.LayerNorm(90)

    def weights(self) -> dict[str, Tensor]:
        return {name: p.detach() for name, p in self.named_parameters() if p.dim() > 1}


def normal(std: float) -> Callable[[Tensor], Tensor]:
    return torch.distributions.Normal(0.0, std).cdf


def uniform(bound: float) -> Callable[[Tensor], Tensor]:
    return lambda x: ((x / bound + 1) / 2).clamp(0, 1)


def truncated(std: float) -> Callable[[Tensor], Tensor]:
    cdf = normal(std)
    below, above = (cdf(torch.tensor(side * 2 * std)) for side in (-1.0, 1.0))
    return lambda x: ((cdf(x) - below) / (above - below)).clamp(0, 1)


def fans(weight: Tensor) -> tuple[int, int]:
    """In and out: connections of one output, and of one input."""
    return weight[0].numel(), weight[:, 0].numel()


def expected(scheme: str, name: str, weight: Tensor) -> Callable[[Tensor], Tensor]:
    """The distribution function, from the scheme's paper."""
    fan_in, fan_out = fans(weight)
    if scheme == "kaiming":
        return normal(math.sqrt(2 / fan_in))
    if scheme == "xavier":
        return uniform(math.sqrt(6 / (fan_in + fan_out)))
    if scheme == "gpt2":
        return normal(0.02)
    return truncated(0.02)


def distance(weight: Tensor, cdf: Callable[[Tensor], Tensor]) -> float:
    """Kolmogorov's and Smirnov's: times the square root of the size it is below 1.95 in all but
    one of a thousand samples."""
    values = weight.flatten().double().sort().values
    steps = torch.arange(1, len(values) + 1, dtype=torch.float64) / len(values)
    off = torch.maximum((cdf(values) - steps).abs(), (cdf(values) - steps + 1 / len(values)).abs())
    return off.max().item() * math.sqrt(len(values))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_scheme_draws_from_its_distribution(scheme: str) -> None:
    torch.manual_seed(0)
    parts = Parts()
    with torch.no_grad():
        parts.norm.bias.fill_(1.0)
    initialize(parts, scheme)
    for name, weight in parts.weights().items():
        assert distance(weight, expected(scheme, name, weight)) < 1.95, name
    assert all(not p.any() for name, p in parts.named_parameters() if "bias" in name)
    assert (parts.norm.weight == 1).all()


@pytest.mark.parametrize(
    ("scheme", "wrong"),
    [
        ("kaiming", lambda w: normal(math.sqrt(2 / fans(w)[1]))),
        ("kaiming", lambda w: normal(math.sqrt(1 / fans(w)[0]))),
        ("kaiming", lambda w: uniform(math.sqrt(6 / fans(w)[0]))),
        ("xavier", lambda w: normal(math.sqrt(2 / sum(fans(w))))),
        ("xavier", lambda w: uniform(math.sqrt(3 / sum(fans(w))))),
        ("gpt2", lambda w: truncated(0.02)),
        ("truncated_normal", lambda w: normal(0.02)),
    ],
)
def test_another_distribution_is_told_apart(scheme: str, wrong: Callable) -> None:
    torch.manual_seed(0)
    parts = Parts()
    initialize(parts, scheme)
    weight = parts.blocks[0].weight.detach()
    assert distance(weight, wrong(weight)) > 1.95


def test_gpt2_scales_what_adds_up_along_the_stream() -> None:
    torch.manual_seed(0)
    parts = nn.ModuleList(Parts() for _ in range(4))
    initialize(parts, "gpt2", residual=("projection",))
    for each in parts:
        assert distance(each.projection.weight, normal(0.02 / math.sqrt(4))) < 1.95
        assert distance(each.blocks[0].weight, normal(0.02)) < 1.95


@pytest.mark.parametrize(
    ("name", "streams"),
    [
        ("megabyte", {"global_blocks": 4, "local_blocks": 6}),
        ("gpt", {"blocks": 8}),
        ("perceiver_ar", {"read": 8, "blocks": 8}),  # one stream: what it read is what goes on
    ],
)
def test_gpt2_counts_what_adds_up_in_each_stream(name: str, streams: dict[str, int]) -> None:
    """MEGABYTE's patches and its positions have one each: their sums are apart."""
    layers = ["model.n_layer_local=3"] if name == "megabyte" else []
    torch.manual_seed(0)
    model = fresh(node(name, *layers)).initialize("gpt2")
    for stream, added in streams.items():
        maps = residual_maps(model.get_submodule(stream), model.residual)
        weights = torch.cat([each.weight.detach().flatten() for each in maps])
        assert distance(weights, normal(0.02 / math.sqrt(added))) < 1.95, stream


def test_names_in_configuration_are_the_schemes() -> None:
    assert ("default", *SCHEMES) == get_args(Init)


@pytest.mark.parametrize("name", TRAINED)
def test_every_scheme_on_every_architecture(name: str) -> None:
    model = fresh(node(name))
    for scheme in SCHEMES:
        torch.manual_seed(0)
        before = {key: p.detach().clone() for key, p in model.named_parameters()}
        assert model.initialize(scheme) is model
        known = roles(model)
        filters = {id(m.weight) for m in model.modules() if isinstance(m, FilterPerChannel)}
        for key, parameter in model.named_parameters():
            role = known[key]
            assert role is not None, key
            if parameter.dim() > 1 and not role.bias and id(parameter) not in filters:
                assert role.matrix or role.embedding, key
            if role.matrix or role.embedding:
                assert not torch.equal(parameter, before[key]), key
                assert parameter.isfinite().all(), key
            elif role.bias:
                assert not parameter.any(), key
            else:  # scales, decay rates, a filter per channel
                assert torch.equal(parameter, before[key]), key
        time = min(8, model.block_size or 8)
        assert model(random_ids(2, time)).isfinite().all()


@pytest.mark.parametrize("name", TRAINED)
def test_zero_residual_on_every_architecture(name: str) -> None:
    model = fresh(node(name))
    assert len(residual_maps(model, model.residual)) == MAPS.get(name, 0)
    if name not in MAPS:
        with pytest.raises(ValueError, match="no maps into a residual stream"):
            model.initialize(zero_residual=True)
        return
    model.initialize(zero_residual=True)
    # What is added to the stream is nothing, whatever the inside of the blocks is.
    time = min(8, model.block_size or 8)
    ids = random_ids(2, time)
    logits = model(ids)
    with torch.no_grad():
        for path, module in model.named_modules():
            if path.rpartition(".")[2] in ("qkv", "expand", "key_value"):
                module.weight.mul_(3.0)
    torch.testing.assert_close(model(ids), logits)
    assert all(not p.any() for m in residual_maps(model, model.residual) for p in m.parameters())


def test_blocks_of_zero_residual_are_the_identity() -> None:
    model = fresh(node("gpt")).initialize("xavier", zero_residual=True)
    ids = random_ids(2, 8)
    embedded = model.token_embedding(ids) + model.position_embedding(torch.arange(8))
    torch.testing.assert_close(model(ids, return_features=True), model.norm(embedded))


def test_weights_of_unknown_layout_are_refused() -> None:
    class Unmarked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2, 3))

    with pytest.raises(ValueError, match=r"part.weight is unmarked"):
        initialize(nn.ModuleDict({"part": Unmarked()}), "kaiming")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("model=mlp", "zero_residual=true"), "MLP declares no maps into a residual stream"),
        (("init=kaming",), "Did you mean kaiming"),
        (("model=ladder", "model.residual=false", "zero_residual=true"), "declares no maps"),
    ],
)
def test_what_makes_no_sense_is_refused(
    tmp_path: Path, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        train(tmp_path / "a", *overrides)
    assert not (tmp_path / "a/run").exists()


def test_a_run_begins_as_it_is_told(tmp_path: Path) -> None:
    for name, more in {"a": "init=kaiming", "b": "init=gpt2", "c": "zero_residual=true"}.items():
        assert train(tmp_path / name, *TRAIN, more) == 0
    log = {name: (tmp_path / name / "run/train.log").read_text() for name in "abc"}
    # Kaiming's head has logits of variance two: the first loss is far above ln V, and that is said.
    assert "more than 10 % off" in log["a"]
    assert "first loss" in log["b"]
    assert "more than 10 % off" not in log["b"] + log["c"]
    first = [rows(tmp_path / name)[0]["train/loss"] for name in "abc"]
    assert first[0] > 1.1 * first[1]
    assert len(set(first)) == 3


def test_a_user_s_model_has_the_schemes(tmp_path: Path) -> None:
    """All it takes is the interface."""

    class Mine(LanguageModel):
        def __init__(self) -> None:
            super().__init__()
            self.token_embedding = nn.Embedding(7, 50)
            self.head = nn.Linear(50, 7)

    model = Mine().initialize("xavier")
    assert model.token_embedding.weight.abs().max() <= math.sqrt(6 / 57)
