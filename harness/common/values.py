"""Plain values from configuration and command lines: type checks, and words for error messages."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable, Sequence
from typing import Any

from harness.common.errors import UsageError


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain value has the type `hint`. True for types that no plain value has: their
    constructor must check."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, choice) for choice in _plain_choices(inner))
    if origin is typing.Literal:
        return any(value == choice and type(value) is type(choice) for choice in inner)
    if hint in (None, type(None)):
        return value is None
    if hint in (bool, str, int):
        return type(value) is hint
    if hint is float:
        return type(value) in (int, float)
    kind = origin or hint
    if kind is dict:
        key_hint, item_hint = inner or (Any, Any)
        return isinstance(value, dict) and all(
            fits(key, key_hint) and fits(item, item_hint) for key, item in value.items()
        )
    if kind in (list, tuple):
        if not isinstance(value, (list, tuple)):
            return False
        if kind is tuple and inner and Ellipsis not in inner:
            return len(value) == len(inner) and all(map(fits, value, inner))
        return not inner or all(fits(item, inner[0]) for item in value)
    return True


def _plain_choices(hints: Sequence[Any]) -> list[Any]:
    """The plain types of a union, None last: torch writes `float | Tensor` for a number."""
    kinds = (bool, str, int, float, list, tuple, dict, typing.Literal)
    plain = [hint for hint in hints if (typing.get_origin(hint) or hint) in kinds]
    return [*plain, *(hint for hint in hints if hint is type(None))] if plain else list(hints)


def describe(hint: Any) -> str:
    """A type in words."""
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    names |= {type(None): "null", dict: "a group of settings"}
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(choice) for choice in _plain_choices(inner))
    if origin is typing.Literal:
        return "one of " * (len(inner) > 1) + ", ".join(map(show, inner))
    if origin in (list, tuple):
        kinds = ["…" if kind is Ellipsis else describe(kind) for kind in inner]
        return f"a list: [{', '.join(kinds if origin is tuple else [*kinds, '…'])}]"
    return names.get(origin or hint, str(hint))


NEAR = 0.51  # share of letters in common; with a half, `nope` would be `hnet`


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """' Did you mean …?' with the valid name nearest to `word`; empty if none is near."""
    near = nearest(word, valid)
    return f" Did you mean {near}?" if near else ""


def nearest(word: str, valid: Iterable[str]) -> str | None:
    """The valid name nearest to `word`; None if none is near."""
    valid = [choice for choice in valid if choice != word]
    longer = [choice for choice in valid if len(word) > 1 and choice.startswith(word)]
    if longer:
        return min(longer, key=len)
    last = word.rpartition(".")[2]
    # Of dotted names the last part counts, too: stepz should find train.steps.
    tails = {choice.rpartition(".")[2]: choice for choice in valid}
    wholes = {choice: choice for choice in valid}
    for typed, names in ((word, wholes if "." in word else tails | wholes), (last, tails)):
        if close := difflib.get_close_matches(typed, names, n=1, cutoff=NEAR):
            return names[close[0]]
    return None


def show(value: object) -> str:
    """A value as a user would type it, at most 80 characters."""
    words = {None: "null", True: "true", False: "false"}
    text = words[value] if value is None or isinstance(value, bool) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def require_choice(key: str, value: str, valid: Sequence[str]) -> None:
    """Raises UsageError, with the nearest valid name, if `value` is not one of `valid`."""
    if value not in valid:
        raise UsageError(
            f"{key}={show(value)} is not one of {', '.join(valid)}.{did_you_mean(value, valid)}"
        )
