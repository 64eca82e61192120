"""A model's class that is named on the command line, `model._target_=mine.X`: which settings it
gets, and its name.

Of a file that was chosen as well (`model=gpt`) it gets the settings that its constructor takes.
Without one it gets what was typed and nothing else.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from harness.common.errors import UsageError
from harness.common.values import did_you_mean
from harness.config.build import WRAPPER, settings_taken
from harness.config.keys import names_in_group

TARGET = "model._target_"


def chosen(model: str, trust: Sequence[str]) -> list[str]:
    """The overrides that choose a model by one word: a file of conf/model, or a class.

    Raises UsageError for what is neither.
    """
    names = names_in_group("model")
    if model in names:
        return [f"model={model}"]
    if "." in model:
        return [f"{TARGET}={model}", f"trust=[{','.join(trust)}]"]
    raise UsageError(
        f"{model} is neither a file of conf/model nor a class (mine.X).{did_you_mean(model, names)}"
    )


def with_its_settings(overrides: Sequence[str]) -> list[str]:
    """The overrides, in which settings of a named class need no +: no file can list them."""
    if TARGET not in _keys(overrides):
        return list(overrides)
    return [
        f"++{bare}" if (bare := override.lstrip("+")).startswith("model.") else override
        for override in overrides
    ]


def fit(config: DictConfig, overrides: Sequence[str]) -> None:
    """Drop the settings that a class named by the overrides does not get, and name the model by it.

    A class that can't be used is left as it is: it is refused where it would be built.
    """
    keys = _keys(overrides)
    if TARGET not in keys:
        return
    node: Any = OmegaConf.to_container(config.model, resolve=False)
    target = node["_target_"]
    if not isinstance(target, str):
        return
    taken: set[str] = set()
    if "model" in keys:
        try:
            taken = settings_taken(node, "model", config.trust)
        except UsageError:
            return
    typed = {key.split(".")[1] for key in keys if key.startswith("model.")}
    dropped = [name for name in node if name not in taken | typed]
    if "model" in keys and dropped:
        _say(f"{target} does not take these settings of the model's file: {', '.join(dropped)}")
    with open_dict(config):  # the wrapper is called by the name of the class that it wraps
        for name in dropped:
            del config.model[name]
        named = str(node.get("module") if target == WRAPPER else target).rpartition(".")[2]
        if "names.model" not in keys and named.isidentifier():
            config.names.model = named


def _keys(overrides: Sequence[str]) -> list[str]:
    return [override.lstrip("+").partition("=")[0] for override in overrides]


@functools.cache  # a sweep composes each job several times
def _say(line: str) -> None:
    print(line, file=sys.stderr)
