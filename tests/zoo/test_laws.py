"""Every law over every file in conf/model/, and the mutants that each law must catch.

An architecture's closed forms and mutants are in tests/architectures/, under its module's name.
"""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest

from harness.compute import costs as measure
from tests.zoo.laws import LAWS, OF_STEPS
from tests.zoo_models import (
    COUNTED,
    NAMES,
    VOCAB,
    Mutant,
    fresh,
    maker,
    node,
    of_each_class,
    weightless,
)
from zoo.language_model import LanguageModel

OURS = {
    "bigram", "mlp", "wavenet", "bow", "rnn", "gru", "lstm", "ladder", "gpt", "gpt1", "gpt3",
    "gpt_modern", "gpt_moe", "llama", "mistral", "megabyte", "ngram", "perceiver_ar", "hf",
    "mamba2", "gated_deltanet", "gated_deltanet_hybrid", "mlstm", "rwkv7", "spacebyte",
    "hnet", "hierarchical",
}  # fmt: skip


def architecture(name: str) -> ModuleType | None:
    module = "tests.zoo.architectures." + node(name)["_target_"].split(".")[-2]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        return None


def mutants() -> list[Mutant]:
    found = {}
    for name in NAMES:
        for mutant in getattr(architecture(name), "MUTANTS", []):
            found[f"{mutant.model}: {mutant.name}"] = mutant
    return list(found.values())


@pytest.mark.parametrize("name", of_each_class(NAMES))
@pytest.mark.parametrize("law", LAWS)
def test_law(law: str, name: str) -> None:
    if law not in OF_STEPS or name not in COUNTED:
        LAWS[law](maker(name))


@pytest.mark.parametrize("name", NAMES)
def test_parameters_equal_the_closed_form(name: str) -> None:
    """Law 8."""
    forms = architecture(name)
    if forms is None:
        pytest.skip(f"no closed form: write tests/architectures/ for {name}")
    for vocab_size in (VOCAB, 101):
        model = weightless(node(name), vocab_size)
        expected = forms.parameters(node(name), vocab_size)
        found = measure.parameters(model)
        assert found["total"] == expected
        active = getattr(forms, "active_parameters", forms.parameters)
        assert found["active"] == active(node(name), vocab_size)


@pytest.mark.parametrize("name", NAMES)
def test_flops_equal_the_formula(name: str) -> None:
    """Law 9: within 1 %, for a forward pass of a whole window."""
    forms = architecture(name)
    if forms is None:
        pytest.skip(f"no closed form: write tests/architectures/ for {name}")
    model_node = node(name)
    time = weightless(model_node).block_size or 64
    counted = measure.forward_flops(lambda: fresh(model_node), time)
    assert counted == pytest.approx(forms.forward_flops(model_node, VOCAB, time), rel=0.01)


def test_all_of_ours_have_closed_forms_and_mutants() -> None:
    assert set(NAMES) >= OURS
    for name in OURS:
        forms = architecture(name)
        assert forms is not None
        assert forms.MUTANTS, name


@pytest.mark.parametrize("mutant", mutants(), ids=lambda mutant: f"{mutant.model}-{mutant.name}")
def test_mutant_is_caught(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """The law fails for the mutant; that it passes for the model as it is, test_law shows."""

    make = maker(mutant.model, *mutant.overrides)

    def make_mutant(random: bool = True) -> LanguageModel:
        model = make(random)
        mutant.apply(model, monkeypatch)
        return model

    if mutant.overrides:
        LAWS[mutant.law](make)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        LAWS[mutant.law](make_mutant)
