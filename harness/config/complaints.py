"""One-line error messages for invalid settings."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from harness.common.errors import UsageError
from harness.common.values import did_you_mean, show
from harness.config.keys import Node, dotted, mismatch, no_setting, no_value, walk

_RULES = {
    "greater_than_equal": ("ge", "at least {}"),
    "greater_than": ("gt", "above {}"),
    "less_than_equal": ("le", "at most {}"),
    "less_than": ("lt", "below {}"),
}


def first_error(error: ValidationError, model: type[BaseModel], plain: Mapping[str, Any]) -> str:
    """pydantic's first error as one line; an unknown setting before all others."""
    found = error.errors(include_url=False)
    # A typo also leaves the right name without a value; the typo is the cause.
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
        return f"{key}={word} is not one of {', '.join(valid)}.{did_you_mean(word, valid)}"
    if kind == "model_type":
        return f"{key}={show(value)} should be a group of settings ({', '.join(hint.model_fields)})"
    if kind == "range":
        return f"{key}={show(value)} must be {first['msg']}"
    if kind in _RULES:
        name, rule = _RULES[kind]
        null = ", or null" if _without_none(hint) is not hint else ""
        return f"{key}={show(value)} must be {rule.format(f'{context[name]:g}')}{null}"
    return mismatch(key, value, hint)


def reject_missing_values(plain: Node) -> None:
    """Raises UsageError for a `???`, the mark of a value that the user must give."""
    for path, value in walk(plain):
        if value == "???":
            raise UsageError(no_value(dotted(path)))


def reject_extreme_numbers(plain: Node) -> None:
    """Raises UsageError for NaN, an infinity, and an integer of more than 64 bits."""
    for path, value in walk(plain):
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"{dotted(path)}={value} is not a finite number")
        if isinstance(value, int) and abs(value) >= 2**63:
            raise UsageError(
                f"{dotted(path)}={show(value)} is too large: whole numbers end at 2^63 - 1"
            )


def reject_unprintable(plain: Node) -> None:
    """Raises UsageError for a control character in the name of a setting, or in what is sent to a
    logger."""
    for path, value in walk(plain):
        shown = repr(dotted(path))[1:-1]
        if not all(part.isprintable() for part in path if isinstance(part, str)):
            raise UsageError(f"{shown}: a setting's name can't hold control characters")
        if path[:1] == ("logger",) and isinstance(value, str) and not value.isprintable():
            raise UsageError(f"{shown}={value!r:.80} can't hold control characters")


def one_line(error: BaseException) -> str:
    """The message and the key of an error of OmegaConf, which are on separate lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    keys = [line.removeprefix("full_key:") for line in lines if line.startswith("full_key:")]
    key = keys[0].strip() if keys else ""
    message = lines[0] if lines else type(error).__name__
    return f"{key}: {message}" if key and key not in message else message


def _locate(
    place: tuple[int | str, ...], model: type[BaseModel], plain: Mapping[str, Any]
) -> tuple[str, Any, Any]:
    """Key, type and value of the setting at `place`, where pydantic reports an error."""
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
