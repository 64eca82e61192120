"""A recipe (`experiment=NAME`) with other choices, or a smaller budget, than its own.

Its name must not be given to what it is not, and it can be tried small.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from harness.common.errors import UsageError
from harness.config.settings import CURRENCIES

AMOUNTS = ("warmup", "end", "decay", "at")
"""Of schedules: given in the unit of the budget, or below 1 as a share of it."""
OWN_NAME = "${hydra:runtime.choices.model}"  # of a run that is called by its model


def fit(config: DictConfig, overrides: Sequence[str], alone: Callable[[str], DictConfig]) -> None:
    """Rename the run if it has another text or tokenizer than its recipe; scale the schedule to a
    smaller budget. alone: composes a recipe with nothing else that was typed.

    Raises UsageError for a recipe of another model, unless names.model is given too.
    """
    typed = {key: value for key, _, value in (each.partition("=") for each in overrides)}
    budgets = [name for name in CURRENCIES if f"train.{name}" in typed]
    if "experiment" not in typed or not (budgets or typed.keys() & {"model", "tokenizer", "data"}):
        return
    recipe = typed["experiment"]
    own = alone(recipe)
    with open_dict(config):
        _rename(config, own, recipe, typed)
        if budgets and "schedule" not in typed:
            _scale(config, own, recipe, typed)


def _rename(config: DictConfig, own: DictConfig, recipe: str, typed: Mapping[str, str]) -> None:
    names: Any = OmegaConf.to_container(own.names, resolve=False)
    name = names["model"]
    if name == OWN_NAME or "names.model" in typed:
        return
    chosen, meant = config.hydra.runtime.choices, own.hydra.runtime.choices
    if chosen.model != meant.model:
        raise UsageError(
            f"experiment={recipe} is a recipe for model={meant.model}, not for "
            f"model={chosen.model}: leave one of them out"
        )
    for group in ("tokenizer", "data"):
        if chosen[group] != meant[group]:
            name += f"+{chosen[group]}"
    config.names.model = name


def _scale(config: DictConfig, own: DictConfig, recipe: str, typed: Mapping[str, str]) -> None:
    meant, now = _budget(own), _budget(config)
    if meant is None or now is None or (now[0] == meant[0] and now[1] >= meant[1]):
        return
    for key in AMOUNTS:
        value: Any = OmegaConf.select(own.schedule, key)
        if value is None or f"schedule.{key}" in typed:
            continue
        if isinstance(value, ListConfig):
            scaled: Any = [_scaled(amount, meant[1], now[1]) for amount in value]
        else:
            scaled = _scaled(value, meant[1], now[1])
        if scaled != value:
            config.schedule[key] = scaled
            say(
                f"experiment={recipe} is for {meant[1]:g} {meant[0]}: for {now[1]:g} {now[0]} its "
                f"schedule.{key}={_words(value)} becomes {_words(scaled)}, the same share"
            )


def _budget(config: DictConfig) -> tuple[str, float] | None:
    """Currency and amount; None unless one is given."""
    given = [(name, config.train[name]) for name in CURRENCIES if config.train[name] is not None]
    return given[0] if len(given) == 1 and isinstance(given[0][1], (int, float)) else None


def _scaled(amount: float, meant: float, now: float) -> float:
    """A share where the amount lies within the budget: scaled, it could be below 1, which means a
    share anyway. Else (a schedule that is cut off) an amount."""
    if amount < 1:
        return amount
    return amount / meant if amount < meant else amount * now / meant


def _words(value: Any) -> str:
    """A number or a list of them, at four digits."""
    if isinstance(value, (int, float)):
        return f"{value:.4g}"
    return f"[{', '.join(map(_words, value))}]"


@functools.cache  # a sweep composes each job several times
def say(line: str) -> None:
    """On stderr, once a process."""
    print(line, file=sys.stderr)
