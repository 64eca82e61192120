"""The course's ladder, the notes' transformer, and the GPT-3 table: what each recipe builds."""

from __future__ import annotations

import functools
import itertools

import pytest
import torch
import torch.nn.functional as F

from harness.cli.hydra_app import compose
from harness.compute import costs as measure
from harness.config.settings import Settings, read_settings
from harness.training.optim import build_optimizer
from tests.zoo.architectures import bigram, gpt, ladder
from tests.zoo.laws import LAWS
from tests.zoo_models import VOCAB, fresh, randomize
from zoo.language_model import LanguageModel

V, C, T = 65, 32, 8
RUNGS = [
    "ladder_1_bigram",
    "ladder_2_positions",
    "ladder_3_one_head",
    "ladder_4_multi_head",
    "ladder_5_feed_forward",
    "ladder_6_residual",
    "ladder_7_blocks",
    "ladder_8_norm",
    "ladder_9_dropout",
]
BLOCK = 3 * C * C + C * C + C + 8 * C * C + 5 * C
# How many parameters each rung adds to the one below it.
ADDED = {
    "ladder_1_bigram": V * V,
    "ladder_2_positions": V * C + T * C + C * V + V - V * V,  # its table replaces the bigram's
    "ladder_3_one_head": 3 * C * C,
    "ladder_4_multi_head": 0,
    "ladder_5_feed_forward": 8 * C * C + 5 * C,
    "ladder_6_residual": C * C + C,  # the projection into the residual stream
    "ladder_7_blocks": 2 * BLOCK,
    "ladder_8_norm": (2 * 3 + 1) * 2 * C,
    "ladder_9_dropout": 0,
}
GPT3 = {  # parameters in millions, Brown et al. 2020, table D.1
    "small": 125,
    "medium": 356,
    "large": 760,
    "xl": 1320,
    "2.7b": 2650,
    "6.7b": 6660,
    "13b": 12850,
    "175b": 174600,
}


@functools.cache
def recipe(name: str) -> Settings:
    return read_settings(compose([f"experiment={name}"]))


def without_weights(settings: Settings, vocab_size: int) -> LanguageModel:
    with torch.device("meta"):
        return fresh(settings.model, vocab_size)


def test_each_rung_adds_what_its_name_says() -> None:
    below = 0
    for name in RUNGS:
        total = measure.parameters(without_weights(recipe(name), V))["total"]
        assert total - below == ADDED[name], name
        below = total
    forms = [bigram] + [ladder] * 8
    settings = [recipe(name).model for name in RUNGS]
    assert [form.parameters(node, V) for form, node in zip(forms, settings, strict=True)] == [
        sum(list(ADDED.values())[: rung + 1]) for rung in range(9)
    ]


def test_rungs_differ_in_nothing_else() -> None:
    """One below the other: which settings of the model and the training change."""
    changes = []
    for lower, upper in itertools.pairwise(RUNGS[1:]):
        before, after = recipe(lower), recipe(upper)
        changed = {name for name, value in after.model.items() if before.model[name] != value}
        if (before.train, before.optimizer) != (after.train, after.optimizer):
            changed.add("train")
        changes.append(changed)
    assert changes == [
        {"n_layer", "train"},  # the course trains longer, with smaller steps, from here on
        {"n_head"},
        {"feed_forward"},
        {"residual", "projection"},
        {"n_layer"},
        {"norm"},
        {"dropout"},
    ]
    assert recipe("ladder_9_dropout").model["dropout"] == 0.2


@pytest.mark.parametrize("name", RUNGS)
def test_a_rung_learns(name: str) -> None:
    settings = recipe(name)
    torch.manual_seed(0)
    model = fresh(settings.model, V)
    optimizer = build_optimizer(settings, model)
    ids = torch.randint(V, (settings.train.batch_size, T + 1))
    losses = []
    for _ in range(20):
        logits = model(ids[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.01


@pytest.mark.parametrize("law", ["causality", "split", "receptive_field", "gradient", "saving"])
@pytest.mark.parametrize("name", RUNGS[1:-2])
def test_law_on_the_lower_rungs(name: str, law: str) -> None:
    """The highest is conf/model/ladder.yaml, which all laws are tested on."""
    node = recipe(name).model

    def make(random: bool = True) -> LanguageModel:
        torch.manual_seed(0)
        return randomize(fresh(node, VOCAB).double().eval())

    LAWS[law](make)


def test_the_course_ends_with_10_8_million() -> None:
    settings = recipe("ladder_final")
    assert measure.parameters(without_weights(settings, V))["total"] == 10_788_929
    assert ladder.parameters(settings.model, V) == 10_788_929


@pytest.mark.parametrize(
    ("name", "form", "expected"),
    [
        ("seed_transformer", ladder, 298_337_385),
        ("seed_transformer_nanogpt", gpt, 203_669_504),
    ],
)
def test_the_notes_transformer(name: str, form: object, expected: int) -> None:
    settings = recipe(name)
    assert measure.parameters(without_weights(settings, 50281))["total"] == expected
    assert form.parameters(settings.model, 50281) == expected  # type: ignore[attr-defined]
    assert settings.model["block_size"] == 10


@pytest.mark.parametrize("size", GPT3)
def test_the_gpt3_table(size: str) -> None:
    """The closed form exactly, and the paper's rounded numbers with GPT-2's 50257 tokens."""
    settings = recipe(f"gpt3_{size}")
    total = measure.parameters(without_weights(settings, 50257))["total"]
    assert total == gpt.parameters(settings.model, 50257)
    assert total == pytest.approx(GPT3[size] * 1e6, rel=0.005)
    assert settings.model["block_size"] == 2048
