"""Dropout is where each architecture's paper has it, by the rate that is set, and nowhere in
evaluation."""

from __future__ import annotations

import math
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.common.errors import UsageError
from tests.small_runs import losses, trace, train
from tests.zoo.laws import LAWS
from tests.zoo_models import NAMES, VOCAB, fresh, maker, node, random_ids, settings_of
from zoo import perceiver_ar
from zoo.gpt import GPT
from zoo.language_model import LanguageModel
from zoo.layers import attention, segments
from zoo.layers.dropout import Dropout, StochasticDepth, drop_out, widened

WITH_DROPOUT = [name for name in NAMES if "dropout" in settings_of(name)]
# The layers whose width the rule raises, and what it is called.
WIDENED = {
    "mlp": "n_hidden", "wavenet": "channels_gate", "bow": "n_hidden", "rnn": "n_hidden",
    "gru": "n_hidden", "lstm": "n_hidden",
}  # fmt: skip


def given_to(module: nn.Module, model: LanguageModel, ids: Tensor) -> Tensor:
    """What a module is given when the model reads `ids`."""
    seen: list[Tensor] = []
    hook = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    model(ids)
    hook.remove()
    return seen[0]


def test_all_with_hidden_units_have_it() -> None:
    without = {"bigram", "hf", "ngram"}  # hf: its configuration's own
    assert set(NAMES) - set(WITH_DROPOUT) == without


@pytest.mark.parametrize("name", WITH_DROPOUT)
def test_it_is_there_in_training_alone(name: str) -> None:
    model_node = node(name)
    ids = random_ids(2, 16)
    plain, dropped = (maker_of(model_node | {"dropout": rate}) for rate in (0.0, 0.4))
    assert torch.equal(plain(ids), dropped(ids))
    plain.train()
    dropped.train()
    torch.manual_seed(1)
    once = dropped(ids)
    torch.manual_seed(1)
    assert torch.equal(once, dropped(ids))  # the generator alone decides
    assert not torch.equal(once, dropped(ids))
    assert torch.equal(plain(ids), plain(ids))


def maker_of(model_node: dict) -> LanguageModel:
    torch.manual_seed(0)
    return fresh(model_node).eval()


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("mlp", ["hidden.0", "head"]),
        ("wavenet", ["blocks.0.skip", "blocks.0.residual", "blocks.9.skip"]),
        ("bow", ["projection"]),
        ("rnn", ["layers.0", "layers.1", "head"]),
        ("lstm", ["layers.0", "layers.1", "head"]),
        ("gru", ["layers.0", "layers.1", "head"]),
    ],
)
def test_the_share_that_is_dropped(name: str, places: list[str]) -> None:
    """The rest is scaled by 1 / (1 - rate), so that the sum stays on average what it was."""
    rate, ids = 0.4, random_ids(8, 32)
    model = maker(name, f"model.dropout={rate}")().train()
    for place in places:
        torch.manual_seed(0)
        dropped = given_to(model.get_submodule(place), model, ids)
        zeros = (dropped == 0).double().mean().item()
        assert zeros == pytest.approx(rate, abs=0.02), place
    kept = given_to(model.eval().get_submodule(places[0]), model, ids)
    torch.manual_seed(0)
    first = given_to(model.train().get_submodule(places[0]), model, ids)
    if places[0] != "layers.0" or name == "rnn":
        alive = first != 0
        torch.testing.assert_close(first[alive], kept[alive] / (1 - rate))


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm"])
def test_no_step_of_a_recurrent_net_loses_its_memory(name: str) -> None:
    """Zaremba's point: the state passes from step to step whole."""
    model = maker(name, "model.dropout=0.9", "model.n_layer=1")().train()
    ids = random_ids(4, 12)
    seen: list[Tensor] = []
    model.layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    model.layers[0].register_forward_hook(lambda _, inputs, output: seen.append(output[0].detach()))
    model(ids)
    kernel = model.layers[0]
    torch.testing.assert_close(kernel(seen[0])[0], seen[1])


@pytest.mark.parametrize("name", WIDENED)
def test_a_widened_layer_keeps_as_many_units(name: str) -> None:
    key = WIDENED[name]
    plain = node(name) | {"dropout": 0.25}
    forms = import_module("tests.zoo.architectures." + plain["_target_"].split(".")[1])
    wide = plain | {"widen_dropout": True}
    by_hand = plain | {key: round(plain[key] / 0.75)}
    counts = [sum(p.numel() for p in fresh(each).parameters()) for each in (wide, by_hand)]
    assert counts[0] == counts[1] == forms.parameters(wide, VOCAB)
    assert sum(p.numel() for p in fresh(plain).parameters()) < counts[0]
    if name == "lstm":  # its cache is as wide
        LAWS["split"](maker(name, "model.dropout=0.25", "model.widen_dropout=true"))


def test_the_width_rule() -> None:
    assert [widened(200, d, True) for d in (0.0, 0.5, 0.2, 0.9)] == [200, 400, 250, 2000]
    assert widened(200, 0.5, False) == 200
    for rate in (-0.1, 1.0):
        with pytest.raises(ValueError, match="below 1"):
            widened(200, rate, True)


# What is drawn on a CPU


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.5, 0.9])
def test_its_rate_and_its_mean_are_those_that_are_set(rate: float) -> None:
    torch.manual_seed(0)
    y = drop_out(torch.ones(1001, 999), rate)
    number, zeros = y.numel(), int((y == 0).sum())
    assert abs(zeros - rate * number) < 4 * math.sqrt(rate * (1 - rate) * number)
    kept = y[y != 0]
    assert torch.equal(kept, kept[:1].expand_as(kept))
    assert kept[0].item() == pytest.approx(1 / (1 - rate), rel=1e-6)


def test_elements_are_dropped_independently() -> None:
    """Neighbours in memory come from one drawn number, and say nothing of each other."""
    torch.manual_seed(0)
    dropped = (drop_out(torch.ones(2**20), 0.25) == 0).double()
    for distance in (1, 2, 3, 4, 8, 64, 1000):
        both = (dropped[distance:] * dropped[:-distance]).mean().item()
        assert both == pytest.approx(0.25**2, abs=0.001), distance


def test_its_gradient_is_that_of_what_was_kept() -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 7, requires_grad=True)
    y = drop_out(x, 0.4)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(gradient, (y / x).detach())


@pytest.mark.parametrize("rate", [0.0, 2**-20, 1.0])
def test_rates_at_the_ends(rate: float) -> None:
    x = torch.ones(100)
    assert set(drop_out(x, rate).gt(0).tolist()) == {rate < 1}
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(drop_out(torch.ones(0, 3), 0.5), torch.ones(0, 3))


@pytest.mark.parametrize("seen", ["all", "the past", "band"])
def test_attention_that_drops_is_torchs_but_for_the_draws(
    seen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shared keys, slopes and a past included."""
    monkeypatch.setattr(attention, "drop_out", lambda weights, rate: weights)
    for groups, slopes in product((6, 2), (None, [0.5, 0.25, 0.1] * 2)):
        q = torch.randn(2, 6, 1 if seen == "all" else 10, 8, dtype=torch.float64)
        k, v = torch.randn(2, 2, groups, q.shape[2] + 3, 8, dtype=torch.float64)
        if seen == "band":
            k, v = k[:, :, 3:], v[:, :, 3:]
        given = (4 if seen == "band" else None, slopes)
        exact = attention.attend(q, k, v, 0.0, *given)
        torch.testing.assert_close(attention.attend(q, k, v, 0.3, *given), exact)


# Stochastic depth


def test_stochastic_depth_drops_whole_sequences() -> None:
    torch.manual_seed(0)
    part = StochasticDepth(0.3)
    x = torch.ones(2000, 3, 4)
    y = part(x)
    assert torch.equal(part.eval()(x), x)
    dropped = (y == 0).flatten(1)
    assert torch.equal(dropped.all(1), dropped.any(1))
    assert dropped.all(1).double().mean().item() == pytest.approx(0.3, abs=0.03)
    assert y.max().item() == pytest.approx(1 / 0.7)
    assert y.mean().item() == pytest.approx(1.0, abs=0.05)


def test_deeper_blocks_are_dropped_more_often() -> None:
    model = GPT(VOCAB, 8, n_layer=4, n_head=2, n_embd=8, stochastic_depth=0.4)
    rates = [m.rate for m in model.modules() if isinstance(m, StochasticDepth)]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4])
    without = GPT(VOCAB, 8, n_layer=4, n_head=2, n_embd=8)
    assert not [m for m in without.modules() if isinstance(m, StochasticDepth)]
    assert model.state_dict().keys() == without.state_dict().keys()


@pytest.mark.parametrize("name", ["gpt", "megabyte", "perceiver_ar"])
def test_attention_dropout_is_that_of_the_weights_alone(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every layer; in evaluation none."""
    seen: list[float] = []
    own = attention.attend

    def told(q: Tensor, k: Tensor, v: Tensor, rate: float, *rest: Any) -> Tensor:
        seen.append(rate)
        return own(q, k, v, rate, *rest)

    for module in (attention, segments, perceiver_ar):
        monkeypatch.setattr(module, "attend", told)
    drawn: list[float] = []
    monkeypatch.setattr(attention, "drop_out", lambda weights, rate: drawn.append(rate) or weights)
    model_node, ids = node(name), random_ids(2, 16)
    for given, expected in (
        ({"dropout": 0.2}, 0.2),
        ({"dropout": 0.2, "attention_dropout": 0.4}, 0.4),
        ({"attention_dropout": 0.4}, 0.4),
        ({"dropout": 0.2, "attention_dropout": 0.0}, 0.0),
    ):
        model = fresh(model_node | given)
        elsewhere = {m.p for m in model.modules() if isinstance(m, nn.Dropout)}
        assert elsewhere == {given.get("dropout", 0.0)}
        for training in (True, False):
            seen.clear()
            drawn.clear()
            model.train(training)(ids)
            assert drawn == [rate for rate in seen if rate]
            assert len(seen) >= 4
            assert set(seen) == {expected if training else 0.0}
    with pytest.raises(UsageError, match="dropout=1 on the attention weights"):
        fresh(model_node | {"attention_dropout": 1.0})


@pytest.mark.parametrize(
    ("name", "layers", "rates"),
    [
        ("megabyte", {"n_layer_global": 2, "n_layer_local": 4}, [0.2, 0.4, 0.1, 0.2, 0.3, 0.4]),
        ("perceiver_ar", {"n_layer": 2}, [0.2, 0.4]),
    ],
)
def test_every_transformer_has_stochastic_depth(
    name: str, layers: dict[str, int], rates: list[float]
) -> None:
    model_node, ids = node(name) | layers, random_ids(2, 16)
    model = fresh(model_node | {"stochastic_depth": 0.4})
    found = [m.rate for m in model.modules() if isinstance(m, StochasticDepth)]
    assert found == pytest.approx(rates)
    without = fresh(model_node)
    assert not [m for m in without.modules() if isinstance(m, StochasticDepth)]
    without.load_state_dict(model.state_dict())
    assert torch.equal(model.eval()(ids), without(ids))
    assert not torch.equal(model.train()(ids), without(ids))


def test_a_dropped_block_is_the_identity() -> None:
    model = GPT(VOCAB, 8, n_layer=1, n_head=2, n_embd=8, stochastic_depth=0.999).train()
    torch.manual_seed(0)
    x = torch.randn(3, 8, 8)
    assert torch.equal(model.blocks[0](x), x)


# From the command line


@pytest.mark.parametrize(
    "chosen",
    [
        ("model=mlp", "model.dropout=0.5", "model.widen_dropout=true", "model.n_hidden=16"),
        pytest.param(
            ("model=wavenet", "model.dropout=0.2", "model.n_stack=1"), marks=pytest.mark.long
        ),
        ("model=lstm", "model.dropout=0.2", "model.n_hidden=16"),
        ("model=gpt", "model.stochastic_depth=0.5", "model.n_embd=16", "model.n_layer=2"),
        pytest.param(
            ("model=megabyte", "model.stochastic_depth=0.5", "model.attention_dropout=0.2"),
            marks=pytest.mark.long,
        ),
        pytest.param(
            ("model=perceiver_ar", "model.stochastic_depth=0.5", "model.n_latent=4"),
            marks=pytest.mark.long,
        ),
    ],
    ids=" ".join,
)
def test_masks_depend_on_seed_and_step_alone(tmp_path: Path, chosen: tuple[str, ...]) -> None:
    """An interrupted run goes on with the masks of an uninterrupted one."""
    chosen = (*chosen, "checkpoint.every=4", "eval.every=100")
    train(tmp_path / "a", *chosen)
    before = trace(tmp_path / "a")
    (tmp_path / "a/run/checkpoints/step-00000008.pt").unlink()
    path = tmp_path / "a/run/summary.json"
    path.write_text(path.read_text().replace("finished", "running"))
    train(tmp_path / "a", *chosen, "resume=true")
    assert trace(tmp_path / "a") == before
    off = ("model.dropout=0",) if "stochastic" not in chosen[1] else ("model.stochastic_depth=0",)
    train(tmp_path / "b", *chosen, *off)
    assert losses(tmp_path / "b") != losses(tmp_path / "a")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("model=bigram", "+model.dropout=0.1"), "Bigram does not have it"),
        (("model=gpt", "+model.widen_dropout=true"), "GPT does not have it"),
        (("model=mlp", "model.dropout=1.0"), "below 1"),
        (("model=lstm", "model.dropout=-0.5"), "at least 0"),
        (("model=gpt", "model.stochastic_depth=1.0"), "stochastic_depth=1"),
        (("model=megabyte", "model.stochastic_depth=-0.1"), "must be at least 0"),
    ],
)
def test_what_makes_no_sense_is_refused(
    tmp_path: Path, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        train(tmp_path / "a", *overrides)
