"""What is wrong with a configuration, in one line that names the setting."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from harness.common.errors import UsageError
from harness.common.values import nearest, show
from harness.config.keys import mismatch, no_setting, no_value

_RULES = {
    "greater_than_equal": ("ge", "at least {}"),
    "greater_than": ("gt", "above {}"),
    "less_than_equal": ("le", "at most {}"),
    "less_than": ("lt", "below {}"),
}


def complaint(error: ValidationError, model: type[BaseModel], plain: Mapping[str, Any]) -> str:
    """What pydantic found first, as one line; a setting that does not exist before all else."""
    found = error.errors(include_url=False)
    # A typo leaves the right name without a value: the typo is what to say.
    order = ("extra_forbidden", "missing")
    first = min(found, key=lambda each: (*order, each["type"]).index(each["type"]))
    key, hint, value = _locate(first["loc"], model, plain)
    kind, context = first["type"], first.get("ctx", {})
    if kind == "whole_line":
        return first["msg"]
    if kind == "extra_forbidden":
        return no_setting(".".join(map(str, first["loc"])))
    if kind == "missing" or value == "???":
        return no_value(key)
    if kind == "literal_error":
        valid = [str(choice) for choice in typing.get_args(_without_none(hint))]
        word = show(value)
        return f"{key}={word} is not one of {', '.join(valid)}.{nearest(word, valid)}"
    if kind == "model_type":
        return f"{key}={show(value)} should be a group of settings ({', '.join(hint.model_fields)})"
    if kind == "range":
        return f"{key}={show(value)} must be {first['msg']}"
    if kind in _RULES:
        name, rule = _RULES[kind]
        null = ", or null" if _without_none(hint) is not hint else ""
        return f"{key}={show(value)} must be {rule.format(f'{context[name]:g}')}{null}"
    return mismatch(key, value, hint)


def refuse_missing(value: Any, key: str) -> None:
    """Values that a file leaves to the user are written ???. Raises UsageError for one."""
    if value == "???":
        raise UsageError(no_value(key))
    if isinstance(value, Mapping):
        for name, inner in value.items():
            refuse_missing(inner, f"{key}.{name}" if key else str(name))


def refuse_extreme_numbers(value: Any, key: str) -> None:
    """Raises UsageError for a NaN or infinity, and for an integer beyond 64 bits."""
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{key}={value} is not a finite number")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise UsageError(f"{key}={show(value)} is too large: whole numbers end at 2^63 - 1")
    if isinstance(value, Mapping):
        for name, inner in value.items():
            refuse_extreme_numbers(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            refuse_extreme_numbers(inner, f"{key}[{position}]")


def one_line(error: BaseException) -> str:
    """OmegaConf puts the key on a line of its own; keep the message and the key."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    key = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("full_key:")), ""
    )
    message = lines[0] if lines else type(error).__name__
    return f"{key}: {message}" if key and key not in message else message


def _locate(
    place: tuple[int | str, ...], model: type[BaseModel], plain: Mapping[str, Any]
) -> tuple[str, Any, Any]:
    """The key, type and value of the setting in which pydantic found something."""
    names: list[str] = []
    kind: Any = model
    value: Any = plain
    for part in place:
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            break
        hints = typing.get_type_hints(kind)  # without the ranges and roles
        if part not in hints or not isinstance(value, Mapping):
            break
        names.append(str(part))
        kind, value = hints[str(part)], value.get(part)
    return ".".join(names), kind, value


def _without_none(hint: Any) -> Any:
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return hint
    return next(each for each in typing.get_args(hint) if each is not type(None))
