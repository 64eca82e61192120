"""What is judged: two sides, read from the command line, that differ in nothing but what is asked.

Light: a mistake is reported before torch is loaded.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from harness.cli.hydra_app import compose
from harness.common.errors import UsageError
from harness.config import own_class
from harness.config.identity import differences
from harness.config.settings import CURRENCIES, Settings, read_settings, require_trusted

SIDES = ("candidate", "baseline")
BUDGETS = tuple(f"train.{currency}" for currency in CURRENCIES)
# The judge chooses these. A run's folder can't be named, nor a seed that has been seen.
OURS = ("seed", "run_dir", "resume", "checkpoint_dir", "fork_from", "hydra", "experiment")


@dataclass(frozen=True)
class Side:
    """text: as it was typed; it names the side in tables."""

    text: str
    settings: Settings


def read_sides(
    candidate: str, baseline: str, shared: Sequence[str], trust: Sequence[str]
) -> tuple[Side, Side]:
    """shared: overrides of both sides, the budget among them. trust: packages of the user's own.

    Raises UsageError if a side can't be composed, and if they differ in what must be equal.
    """
    if not any(_key(override) in BUDGETS for override in shared):
        raise UsageError(f"give the budget of each training, one of {', '.join(BUDGETS)}")
    first, second = (_read(text, shared, trust) for text in (candidate, baseline))
    _require_comparable(first.settings, second.settings)
    return first, second


def _read(text: str, shared: Sequence[str], trust: Sequence[str]) -> Side:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{text!r}: {error}") from error
    if len(words) == 1 and "=" not in words[0]:
        words = own_class.chosen(words[0], trust)
    if not words:
        raise UsageError("a side is a model's name, or settings in quotes: 'model=gpt init=xavier'")
    for override in (*words, *shared):
        key = _key(override)
        if key.partition(".")[0] in OURS:
            raise UsageError(f"{override}: the judge chooses {key.partition('.')[0]}")
    for override in words:
        if _key(override) in (*BUDGETS, *map(_key, shared)):
            raise UsageError(f"{override} is for both sides: give it once, outside of the quotes")
    settings = read_settings(compose([*words, *shared]))
    settings = settings.replace(trust=[*settings.trust, *trust])
    require_trusted(settings)
    return Side(text, settings)


def _require_comparable(first: Settings, second: Settings) -> None:
    """The same text, scored in the same way, and the same budget."""
    for group in ("data", "eval"):
        a, b = first.plain()[group], second.plain()[group]
        if differing := differences(a, b):
            raise UsageError(f"{group} must be that of both sides: {'; '.join(differing)}")
    if first.train.budget[0] != "steps":
        return
    sizes = [
        train.batch_size * train.accumulate * train.seq_len for train in (first.train, second.train)
    ]
    if sizes[0] != sizes[1]:
        raise UsageError(
            f"a step has {sizes[0]} tokens for the candidate and {sizes[1]} for the baseline: give "
            "the budget by train.tokens or another currency"
        )


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]
