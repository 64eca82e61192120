"""Every architecture, small and in float64, from the files in conf/model/."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import yaml

from harness.cli.hydra_app import compose
from harness.common.paths import CONF
from harness.compute import costs as measure
from harness.config.build import build_object
from harness.config.settings import read_settings
from harness.referee.weights import randomize as unit_gain
from tests.small_runs import FILES
from zoo.language_model import LanguageModel

VOCAB = 23
NAMES = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
COUNTED = {"ngram"}  # in one pass, without parameters: see tests/zoo/test_ngram.py
TRAINED = [name for name in NAMES if name not in COUNTED]
# What another name stands for where every model trains or decodes: configurations of one class,
# and rnn and gru, which have all but the kernel from lstm's base class.
VARIANTS = {
    *("gpt1", "gpt3", "gpt_modern", "gpt_moe", "llama", "mistral"),  # gpt
    *("rnn", "gru"),  # lstm
    "gated_deltanet_hybrid",
}
# One of each kind of past: a window of keys, convolutions, a state, patches, a matrix, counts.
KINDS = {"gpt", "wavenet", "lstm", "megabyte", "mamba2", "ngram"}
READS_BYTES = {"spacebyte"}
Make = Callable[..., LanguageModel]
"""make() has random weights of unit gain; make(random=False) those that training begins with."""


def of_each_class(names: Sequence[str]) -> list[Any]:
    """Parameters for a test that trains or decodes with each model: variants are long tests."""
    return [
        pytest.param(name, marks=pytest.mark.long) if name in VARIANTS else name for name in names
    ]


def settings_of(name: str) -> set[str]:
    """The settings in a model's file and in those that it begins with; without Hydra, at once."""
    plain = yaml.safe_load((CONF / "model" / f"{name}.yaml").read_text())
    others = [each for each in plain.pop("defaults", []) if each != "_self_"]
    return set(plain).union(*map(settings_of, others))


def of_each_kind(names: Sequence[str]) -> list[Any]:
    """Parameters for a test of what no model has code of its own for: the others are long tests."""
    return [name if name in KINDS else pytest.param(name, marks=pytest.mark.long) for name in names]


def choice(name: str) -> list[str]:
    """The overrides that choose a model, and a tokenizer that it goes with."""
    return [f"model={name}", *(["tokenizer=bytes"] if name in READS_BYTES else [])]


@dataclass(frozen=True)
class Mutant:
    """A seeded error: `apply` breaks the model, and the named law must notice.

    apply(model, monkeypatch) changes the instance, or, by monkeypatch, the module it uses.
    """

    name: str
    law: str
    model: str
    apply: Callable[[LanguageModel, pytest.MonkeyPatch], None]
    overrides: tuple[str, ...] = ()


def node(name: str, *overrides: str) -> dict[str, Any]:
    """The resolved configuration of conf/model/NAME.yaml."""
    return copy.deepcopy(_composed(name, overrides))


@functools.cache
def _composed(name: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    return read_settings(compose([f"model={name}", *overrides], known=FILES)).model


def maker(name: str, *overrides: str) -> Make:
    """Makes the model of conf/model/NAME.yaml, in float64 and evaluation mode."""
    model_node = node(name, *overrides)

    def make(random: bool = True) -> LanguageModel:
        torch.manual_seed(0)
        model = fresh(model_node).double().eval()
        return randomize(model) if random else model

    return make


def fresh(model_node: dict[str, Any], vocab_size: int = VOCAB) -> LanguageModel:
    """As training begins with it."""
    return build_object(model_node, LanguageModel, "model", vocab_size=vocab_size)


def weightless(model_node: dict[str, Any], vocab_size: int = VOCAB) -> LanguageModel:
    """For its shapes alone: nothing is drawn."""
    with torch.device("meta"), measure.NoInitialization():
        return fresh(model_node, vocab_size)


def randomize(model: LanguageModel, seed: int = 0) -> LanguageModel:
    """Weights of unit gain. A model that counts has read what `random_ids` gives the laws."""
    if getattr(model, "fit", None) is not None:  # others' modules have none
        model.fit(random_ids(1, 4000)[0])
    return unit_gain(model, seed)


def widened(model_node: dict[str, Any], name: str) -> int:
    """The width called `name`, by dropout's rule if the node says so: n / (1 - d)."""
    return round(model_node[name] / (1 - model_node["dropout"] * model_node["widen_dropout"]))


def random_ids(rows: int, time: int, seed: int = 1, vocab_size: int = VOCAB) -> torch.Tensor:
    return torch.randint(vocab_size, (rows, time), generator=torch.Generator().manual_seed(seed))


def length(model: LanguageModel, wanted: int = 24) -> int:
    return min(wanted, model.block_size or wanted)
