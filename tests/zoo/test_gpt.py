"""The options of the GPT family: what each does, alone and together, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from harness.compute import costs as measure
from tests.zoo.architectures import gpt as forms
from tests.zoo.laws import LAWS
from tests.zoo_models import VOCAB, fresh, node, random_ids, randomize
from zoo.gpt import GPT
from zoo.language_model import LanguageModel
from zoo.layers.feed_forward import FeedForward
from zoo.layers.rotary import rotate

FAMILY = ("gpt", "gpt1", "gpt3", "llama", "mistral", "gpt_modern")
SMALL: dict[str, Any] = {"block_size": 16, "n_layer": 3, "n_head": 4, "n_embd": 16}
TOGETHER = {
    "a band of one": {"bands": [1]},
    "bands of several widths": {"bands": [3, 6]},
    "dense once in three": {"bands": [3, 3, None], "rotary_theta": 100.0},
    "one head of keys, banded": {"bands": [4], "n_kv_head": 1, "rotary_theta": 10000.0},
    "a band wider than the block": {"bands": [99]},
    "norms last, everything new": {
        "post_norm": True, "norm": "rms_norm", "rotary_theta": 1e4, "qk_norm": True,
        "activation": "swiglu", "logit_cap": 5.0, "n_kv_head": 2, "tie_weights": False,
    },
    "learned positions, gated, narrow": {"activation": "swiglu", "n_inner": 7, "bias": False},
    "ALiBi, banded, heads that share keys": {"positions": "alibi", "bands": [4], "n_kv_head": 2},
    "ALiBi": {"positions": "alibi"},
    "sinusoidal positions": {"positions": "sinusoidal"},
    "no positions": {"positions": "none", "post_norm": True},
    "QK-norm with layer norm": {"qk_norm": True, "activation": "relu"},
}  # fmt: skip


def small(**options: Any) -> GPT:
    return GPT(VOCAB, **(SMALL | options))


@pytest.mark.parametrize(
    "law", ["causality", "split", "receptive_field", "gradient", "block_size", "saving"]
)
@pytest.mark.parametrize("options", TOGETHER.values(), ids=TOGETHER)
def test_law_with_options_together(options: dict[str, Any], law: str) -> None:
    def make(random: bool = True) -> LanguageModel:
        return randomize(small(**options).double().eval())

    LAWS[law](make)


@pytest.mark.parametrize("options", TOGETHER.values(), ids=TOGETHER)
def test_closed_forms_with_options_together(options: dict[str, Any]) -> None:
    described = node("gpt") | SMALL | options
    model = fresh(described)
    assert measure.parameters(model)["total"] == forms.parameters(described, VOCAB)
    counted = measure.forward_flops(lambda: fresh(described), 16)
    assert counted == forms.forward_flops(described, VOCAB, 16)


def test_receptive_fields() -> None:
    """L layers of width w see 1 + L·(w - 1) tokens, at most block_size; a dense one sees all."""
    assert small(bands=[3]).receptive_field == 7
    assert small(bands=[3, 6]).receptive_field == 1 + 2 + 5 + 2
    assert small(bands=[9]).receptive_field == 16
    assert small(bands=[1]).receptive_field == 1
    assert small(bands=[1, None]).receptive_field == 16


@pytest.mark.parametrize("name", FAMILY)
def test_the_first_loss_is_ln_v(name: str) -> None:
    torch.manual_seed(0)
    ids = random_ids(8, 65, vocab_size=1000)
    logits = fresh(node(name), 1000)(ids[:, :-1])
    loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(1000), abs=0.1)


def test_weights_begin_as_those_of_gpt2() -> None:
    torch.manual_seed(0)
    model = fresh(node("gpt"), 1000)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif "norm" in name:
            assert (parameter == 1).all(), name
        else:
            scaled = name.endswith(
                ("attention.projection.weight", "feed_forward.projection.weight")
            )
            std = 0.02 / math.sqrt(2 * 4) if scaled else 0.02
            # Ten standard errors of a normal's mean and deviation.
            error = 10 * std / math.sqrt(parameter.numel())
            assert parameter.mean().item() == pytest.approx(0, abs=error), name
            assert parameter.std().item() == pytest.approx(std, abs=error), name


@torch.no_grad()
def test_logits_are_bent_into_the_cap() -> None:
    torch.manual_seed(0)
    plain, capped = (randomize(small(logit_cap=cap)) for cap in (None, 2.0))
    ids = random_ids(2, 16)
    expected = 2.0 * torch.tanh(plain(ids) / 2.0)
    assert (plain(ids).abs() > 2).any()
    torch.testing.assert_close(capped(ids), expected)


@torch.no_grad()
def test_activations_are_those_of_their_papers() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 16)
    for activation, formula in {
        "gelu": lambda h: h / 2 * (1 + torch.tanh((2 / math.pi) ** 0.5 * (h + 0.044715 * h**3))),
        "relu": lambda h: h.clamp(min=0),
        "gelu_exact": lambda h: h * (1 + (h / 2**0.5).erf()) / 2,
        "relu2": lambda h: h.clamp(min=0) ** 2,
        "swiglu": lambda h: h[:, :48] / (1 + torch.exp(-h[:, :48])) * h[:, 48:],
    }.items():  # fmt: skip
        model = FeedForward(16, bias=True, activation=activation)  # type: ignore[arg-type]
        hidden = x @ model.expand.weight.T + model.expand.bias
        expected = formula(hidden) @ model.projection.weight.T + model.projection.bias
        torch.testing.assert_close(model(x), expected)


def test_swiglu_has_as_many_parameters() -> None:
    """8/3·n_embd inside instead of 4·n_embd, up to a multiple of 8."""
    assert FeedForward(768, False, "swiglu").projection.in_features == 2048
    assert FeedForward(128, False, "swiglu").projection.in_features == 344


def test_the_cache_holds_what_attention_sees_and_no_more() -> None:
    """Keys and values of each layer: batch, heads of keys, positions, channels of a head."""
    shapes = {name: tuple(t.shape) for name, t in small(n_kv_head=2).init_cache(5).tensors.items()}
    assert set(shapes.values()) == {(5, 2, 16, 4)}
    assert len(shapes) == 2 * 3
    banded = small(bands=[None, 6]).init_cache(5).tensors
    assert [banded[f"{layer}.keys"].shape[2] for layer in range(3)] == [16, 5, 16]
    assert small(bands=[1]).init_cache(5).nbytes == 0


def test_rotation_knows_distances_only() -> None:
    """The product of a query and a key turned by their positions depends on how far apart they are
    (Su et al. 2021, equation 16), and turning changes no length."""
    q, k = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64)

    def product(here: int, there: int) -> float:
        turned = [rotate(x, torch.tensor([at]), 100.0) for x, at in ((q, here), (k, there))]
        return float((turned[0] * turned[1]).sum())

    assert product(7, 3) == pytest.approx(product(104, 100), abs=1e-12)
    assert product(7, 3) != pytest.approx(product(7, 4), abs=1e-3)
    turned = rotate(q, torch.tensor([9]), 100.0)
    assert turned.norm().item() == pytest.approx(q.norm().item(), abs=1e-12)


def test_rotation_tells_positions_apart_in_bfloat16() -> None:
    """bfloat16 has 8 bits: the angles are computed in more."""
    x, positions = torch.ones(1, 1, 2, 8), torch.tensor([1000, 1001])
    expected = rotate(x, positions, 1e4)
    rounded = rotate(x.bfloat16(), positions, 1e4)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), expected, rtol=0, atol=0.01)
    assert not torch.equal(rounded[:, :, 0], rounded[:, :, 1])


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"n_embd": 18}, "n_embd=18 is not a multiple of n_head=4"),
        ({"n_head": 0}, "n_head=0 must be at least 1"),
        ({"n_layer": 0}, "n_layer=0 must be at least 1"),
        ({"block_size": 0}, "block_size=0 must be at least 1"),
        ({"n_embd": -4}, "n_embd=-4 must be at least 1"),
        ({"n_kv_head": 3}, "n_head=4 is not a multiple of n_kv_head=3"),
        ({"n_kv_head": 0}, "n_kv_head=0 must be at least 1"),
        ({"n_inner": 0}, "n_inner=0 must be at least 1"),
        ({"bands": [0]}, "a band of 0 must be at least 1"),
        ({"bands": []}, "bands"),
        ({"rotary_theta": 0.0}, "rotary_theta=0 above 0"),
        ({"rotary_theta": 1e4, "n_embd": 12}, "n_embd/n_head=3 even"),
        ({"logit_cap": 0.0}, "logit_cap=0 must be above 0"),
        ({"attention_dropout": 1.0}, "dropout=1 on the attention weights"),
        ({"dropout": -0.1}, "dropout"),
        ({"norm": "batch_norm"}, "norm='batch_norm' is not one of layer_norm, rms_norm"),
        (
            {"positions": "sines"},
            "positions='sines' is not one of learned, sinusoidal, rope, alibi",
        ),
        (
            {"activation": "tanh"},
            "activation='tanh' is not one of gelu, gelu_exact, relu, relu2, swiglu",
        ),
    ],
)
def test_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError) as caught:
        small(**options)
    assert complaint in str(caught.value)
