"""Plain values, as configuration and command lines give them: of which type, and how to say so."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Sequence
from typing import Any


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain value is of a type; for a type that no plain value has, the constructor
    must judge."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, choice) for choice in _plain_choices(inner))
    if origin is typing.Literal:
        return any(value == choice and type(value) is type(choice) for choice in inner)
    if hint is None or hint is type(None):
        return value is None
    if hint in (bool, str):
        return isinstance(value, hint)
    if hint in (int, float):
        numbers = (int,) if hint is int else (int, float)
        return isinstance(value, numbers) and not isinstance(value, bool)
    kind = origin or hint
    if kind is dict:
        kinds = inner or (Any, Any)
        return isinstance(value, dict) and all(
            fits(key, kinds[0]) and fits(item, kinds[1]) for key, item in value.items()
        )
    if kind in (list, tuple):
        if not isinstance(value, (list, tuple)):
            return False
        if kind is tuple and inner and Ellipsis not in inner:
            return len(value) == len(inner) and all(map(fits, value, inner))
        return not inner or all(fits(item, inner[0]) for item in value)
    return True


def _plain_choices(hints: Sequence[Any]) -> list[Any]:
    """Of a union the types that plain values have: torch writes `float | Tensor` for a number."""
    plain = [
        hint
        for hint in hints
        if (typing.get_origin(hint) or hint)
        in (bool, str, int, float, list, tuple, dict, typing.Literal)
    ]
    nothing = [hint for hint in hints if hint is type(None)]
    return [*plain, *nothing] if plain else list(hints)


def describe(hint: Any) -> str:
    """The values of a type, in words."""
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    names |= {type(None): "null", dict: "a group of settings"}
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(choice) for choice in _plain_choices(inner))
    if origin is typing.Literal:
        return "one of " + ", ".join(map(show, inner))
    if origin in (list, tuple):
        kinds = ["…" if kind is Ellipsis else describe(kind) for kind in inner]
        return f"a list: [{', '.join(kinds if origin is tuple else [*kinds, '…'])}]"
    if dataclasses.is_dataclass(hint):
        return f"a group of settings ({', '.join(typing.get_type_hints(hint))})"
    return names.get(origin or hint, str(hint))


def nearest(word: str, valid: Iterable[str]) -> str:
    """' Did you mean …?' for the choice that looks most like `word`; empty if none does."""
    near = closest(word, valid)
    return f" Did you mean {near}?" if near else ""


def closest(word: str, valid: Iterable[str]) -> str | None:
    """The choice that looks most like `word`, if one does."""
    valid = [choice for choice in valid if choice != word]
    begun = [choice for choice in valid if len(word) > 1 and choice.startswith(word)]
    if begun:
        return min(begun, key=len)
    close = difflib.get_close_matches(word, valid, n=1, cutoff=0.5)
    if not close:  # compare the last part of dotted names: stepz should find train.steps
        tails = {choice.rpartition(".")[2]: choice for choice in valid}
        tail = difflib.get_close_matches(word.rpartition(".")[2], tails, n=1, cutoff=0.5)
        close = [tails[name] for name in tail]
    return close[0] if close else None


def show(value: object) -> str:
    """A value as one types it, cut where it would flood the line."""
    words = {None: "null", True: "true", False: "false"}
    text = words[value] if value is None or isinstance(value, bool) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def printable(text: str) -> str:
    """Bytes that are no UTF-8 shown as �, so that any terminal takes it."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
