"""One look at a model, and the names of what it saw."""

from __future__ import annotations

from harness.cli.hydra_app import compose
from harness.common.rows import Row
from harness.compute.device import Compute
from harness.config.settings import Settings, read_settings
from harness.observe.observer import Observer
from tests.zoo.laws import CPU
from tests.zoo_models import length, random_ids
from zoo.language_model import LanguageModel

EVERY_STEP = ("observe=full", "observe.every=1")


def chosen(*overrides: str) -> Settings:
    return read_settings(compose(["data=text", "data.path=any", *overrides]))


def looked_at(model: LanguageModel, *overrides: str, compute: Compute = CPU) -> Row:
    """The row of a step whose batch is random."""
    row: Row = {"step": 0}
    ids_BT = random_ids(2, length(model, 16), vocab_size=model.vocab_size)
    with Observer(chosen(*EVERY_STEP, *overrides), model, compute).update(row, ids_BT):
        pass
    return row


def names(row: Row, prefix: str, suffix: str = "") -> list[str]:
    return [
        name.removeprefix(prefix).removesuffix(suffix)
        for name in row
        if name.startswith(prefix) and name.endswith(suffix)
    ]
