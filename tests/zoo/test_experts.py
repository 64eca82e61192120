"""Mixtures of experts: parity with transformers, what they cost, and what their losses say."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.compute import costs
from tests.zoo.architectures import gpt as forms
from tests.zoo.laws import LAWS
from tests.zoo_models import VOCAB, fresh, node, random_ids, randomize, weightless
from zoo.gpt import GPT
from zoo.language_model import LanguageModel
from zoo.layers.experts import MixtureOfExperts, add_losses

C, E, INNER = 16, 4, 24
SMALL: dict[str, Any] = {"block_size": 16, "n_layer": 2, "n_head": 2, "n_embd": C, "n_expert": E}
OPTIONS: dict[str, dict[str, Any]] = {
    "one of four, gated": {"n_expert_active": 1, "activation": "swiglu", "bias": False},
    "all of them, norms last": {"n_expert_active": 4, "post_norm": True},
}


@pytest.mark.parametrize("law", ["causality", "split", "gradient", "score"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_law_with_options(options: dict[str, Any], law: str) -> None:
    def make(random: bool = True) -> LanguageModel:
        return randomize(GPT(VOCAB, **SMALL, **options).double().eval())

    LAWS[law](make)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_closed_forms_with_options(options: dict[str, Any]) -> None:
    described = node("gpt_moe") | SMALL | {"n_inner": None} | options
    found = costs.parameters(fresh(described))
    assert found["total"] == forms.parameters(described, VOCAB)
    assert found["active"] == forms.active_parameters(described, VOCAB)
    counted = costs.forward_flops(lambda: fresh(described), 16)
    assert counted == forms.forward_flops(described, VOCAB, 16)


def test_a_dense_model_uses_all_its_parameters() -> None:
    found = costs.parameters(fresh(node("gpt")))
    assert found["active"] == found["total"]


@pytest.mark.parametrize(("model_type", "dense"), [("mixtral", 0), ("deepseek_v3", 1)])
def test_experts_of_transformers_are_counted(model_type: str, dense: int) -> None:
    """Two layers, of which the first may have none; two of four experts of three matrices each."""
    sizes = {"num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": INNER}
    if model_type == "deepseek_v3":
        sizes |= {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "v_head_dim": 4}
        sizes |= {"qk_nope_head_dim": 4, "n_group": 1, "topk_group": 1, "n_routed_experts": E}
        sizes |= {"moe_intermediate_size": INNER, "first_k_dense_replace": dense}
    else:
        sizes |= {"num_local_experts": E}
    config = {"model_type": model_type, "hidden_size": C, "num_hidden_layers": 2, **sizes}
    described = {"_target_": "zoo.hugging_face.HuggingFace", "block_size": 16}
    found = costs.parameters(
        weightless(described | {"config": config | {"num_experts_per_tok": 2}})
    )
    assert found["total"] - found["active"] == (2 - dense) * 2 * 3 * C * INNER


def test_flops_are_those_of_any_routing() -> None:
    """On the CPU, by values, as on meta, where no token has a value."""

    def on_cpu() -> LanguageModel:
        if torch.get_default_device().type == "meta":
            raise RuntimeError("a model that looks at its values")
        return randomize(fresh(node("gpt_moe")))

    on_meta = costs.step_flops(lambda: fresh(node("gpt_moe")), 64)
    assert costs.step_flops(on_cpu, 64) == on_meta


def test_equals_mixtral() -> None:
    """transformers' block of experts, weights copied, in float64; its router's softmax is fp32."""
    from transformers import MixtralConfig
    from transformers.models.mixtral.modeling_mixtral import (
        MixtralSparseMoeBlock,
        load_balancing_loss_func,
    )

    config = MixtralConfig(
        hidden_size=C, intermediate_size=INNER, num_local_experts=E, num_experts_per_tok=2
    )
    config._experts_implementation = "eager"
    theirs = randomize(MixtralSparseMoeBlock(config).double().eval())
    ours = MixtureOfExperts(C, False, "swiglu", INNER, E, 2).double()
    with torch.no_grad():
        ours.router.weight.copy_(theirs.gate.weight)
        ours.expand.weight.copy_(theirs.experts.gate_up_proj)
        ours.projection.weight.copy_(theirs.experts.down_proj)
    x = torch.randn(3, 40, C, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    losses: dict[str, Tensor] = {}
    torch.testing.assert_close(ours(x, losses), theirs(x), rtol=1e-5, atol=1e-6)
    # Theirs adds up the shares of the first and the second choice.
    logits = ours.router(x.flatten(0, 1))
    balance = load_balancing_loss_func((logits,), E, 2) / 2
    assert losses["balance"].item() == pytest.approx(balance.item(), rel=1e-6)


def test_every_expert_begins_to_learn() -> None:
    torch.manual_seed(0)
    model = fresh(node("gpt_moe"))
    model(random_ids(12, 64)).logsumexp(-1).sum().backward()
    for name, parameter in model.named_parameters():
        if "expand" in name or "feed_forward.projection" in name:
            assert parameter.grad is not None
            assert all(expert.any() for expert in parameter.grad), name


def test_losses_by_hand() -> None:
    even = torch.zeros(4, E, dtype=torch.float64)
    chosen = torch.arange(E)[:, None]
    losses: dict[str, Tensor] = {}
    add_losses(losses, even, chosen)
    assert losses["balance"].item() == 1.0  # all experts get the same
    assert losses["router_z"].item() == pytest.approx(math.log(E) ** 2)
    sure = torch.tensor([[100.0, 0, 0, 0]] * 4, dtype=torch.float64)
    losses = {}
    add_losses(losses, sure, torch.zeros(4, 1, dtype=torch.int64))
    assert losses["balance"].item() == pytest.approx(E)  # one expert gets all
    add_losses(losses, sure, torch.zeros(4, 1, dtype=torch.int64))
    assert losses["balance"].item() == pytest.approx(2 * E)  # of two layers


def test_nobody_asks_for_losses_in_a_score() -> None:
    model = randomize(GPT(VOCAB, **SMALL).double().eval())
    ids = random_ids(2, 9)
    losses: dict[str, Tensor] = {}
    assert torch.equal(model(ids, losses=losses), model(ids))
    assert losses.keys() == model.auxiliary.keys() == {"balance", "router_z"}
    dense: dict[str, Tensor] = {}
    GPT(VOCAB, **SMALL | {"n_expert": None})(ids, losses=dense)
    assert dense == {}


def test_weights_begin_as_those_of_a_dense_model() -> None:
    """Each layer adds to the residual stream twice, however many experts it has."""
    torch.manual_seed(0)
    model = GPT(VOCAB, 16, n_layer=8, n_head=2, n_embd=64, n_expert=E)
    block = model.blocks[0]
    for name, std in {"expand": 0.02, "projection": 0.02 / 16**0.5}.items():
        weight = getattr(block.feed_forward, name).weight
        assert weight.std().item() == pytest.approx(std, rel=0.05)
    model.initialize("default", zero_residual=True)
    assert not block.feed_forward.projection.weight.any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_expert": 0}, "n_expert=0 must be at least 1"),
        ({"n_expert_active": 0}, "n_expert_active=0 must be at least 1"),
        ({"n_expert_active": 5}, "n_expert_active=5 exceeds n_expert=4"),
        ({"balance_weight": -1.0}, "balance_weight=-1 must be at least 0"),
    ],
)
def test_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        GPT(VOCAB, **SMALL | options)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_few_numbers_of_rows_in_training_on_a_cpu(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each new one would be compiled. What is added changes no output and no gradient."""
    layer = MixtureOfExperts(C, True, "gelu", INNER, E, 2)
    sent = torch.randn(103, C, requires_grad=True)
    seen, linear = set(), torch.nn.functional.linear

    def watched(rows: Tensor, *args: Tensor) -> Tensor:
        seen.add(len(rows))
        return linear(rows, *args)

    def pass_through() -> list[Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            out = layer._through_experts(sent, [40, 0, 1, 62]).float()
        return [out, *torch.autograd.grad(out.square().sum(), [sent, *layer.expand.parameters()])]

    monkeypatch.setattr("zoo.layers.experts.F.linear", watched)
    few = pass_through()
    assert seen == {0, 32, 64}
    monkeypatch.setattr("zoo.layers.experts.ROWS", 1)
    for ours, exact in zip(few, pass_through(), strict=True):
        rtol, atol = (0.02, 1e-3) if precision == "bf16" else (1e-5, 1e-6)
        torch.testing.assert_close(ours, exact, rtol=rtol, atol=atol)
    assert seen == {0, 32, 64, 40, 1, 62}
