"""Objects from configuration. Configuration is data: an object is made only from a class that lies
under a trusted package and implements the interface asked for."""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from harness.common.errors import UsageError
from harness.common.values import fits, nearest, show
from harness.config.keys import mismatch, no_value

TRUSTED = ("zoo", "zoo_tokenizers", "harness", "torch.optim")
T = TypeVar("T")
Node = dict[str, Any]
"""A group of settings. One with a `_target_` names the class that is built from it."""


def build_object(
    node: Node, interface: type[T], where: str, trust: Iterable[str] = (), **given: Any
) -> T:
    """Make the object that `node` describes by `_target_` and its arguments.

    Raises UsageError if the class is not trusted, does not implement `interface`, or refuses
    an argument.
    """
    cls, arguments = check_object(node, interface, where, trust, **given)
    try:
        return cls(**arguments, **given)
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from error


def check_object(
    node: Node, interface: type[T], where: str, trust: Iterable[str] = (), **given: Any
) -> tuple[type[T], Node]:
    """The class that `node` names and the arguments it gives, if the one may be named and takes
    the others."""
    cls = resolve_class(str(node.get("_target_")), interface, where, trust)
    arguments = {key: value for key, value in node.items() if key != "_target_"}
    _check_arguments(cls, arguments, given, where)
    return cls, arguments


def resolve_class(
    target: str, interface: type[T], where: str, trust: Iterable[str] = ()
) -> type[T]:
    """The class called `target`, if it is one that configuration may name."""
    trusted = require_trusted_class(target, where, trust)
    module_name, _, class_name = target.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"{where}._target_={target} does not exist: {error}") from error
    # A trusted module's namespace holds what it imported, too: the class itself must be at home.
    if not (
        inspect.isclass(cls)
        and issubclass(cls, interface)
        and cls is not interface
        and not inspect.isabstract(cls)
        and _under(cls.__module__, trusted)
    ):
        raise UsageError(f"{where}._target_={target} is no {interface.__name__}")
    return cls


def require_trusted_class(target: str, where: str, trust: Iterable[str]) -> tuple[str, ...]:
    """The packages that are trusted; raises UsageError if `target` lies in none of them."""
    trusted = (*TRUSTED, *trust)
    if not _under(target.rpartition(".")[0], trusted):
        package = target.partition(".")[0]
        raise UsageError(
            f"{where}._target_={target} lies outside the trusted packages ({', '.join(trusted)}); "
            f"if you trust it, say so: trust=[{package}] (--trust {package} for a finished run)"
        )
    return trusted


def refuse_nested_targets(value: Any, key: str, depth: int = 0) -> None:
    """Configuration is flat: a class within a class would be built by nobody, or by surprise."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    for name, inner in items:
        if name == "_target_" and depth:
            raise UsageError(
                f"{key}._target_={show(inner)}: only {key.split('.')[0]} itself names a class"
            )
        if isinstance(inner, (Mapping, list)):
            refuse_nested_targets(inner, f"{key}.{name}", depth + 1)


def _under(module: str, packages: Sequence[str]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def _check_arguments(cls: type, arguments: Node, given: Mapping[str, Any], where: str) -> None:
    """Against the constructor's signature, so that a typo never becomes a default."""
    parameters = dict(inspect.signature(cls).parameters)
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    hints = _hints(cls)
    for name, value in arguments.items():
        if name not in parameters and not takes_any:
            known = [choice for choice in parameters if choice not in given]
            raise UsageError(
                f"there is no setting {where}.{name}: {cls.__name__} does not have it."
                f"{nearest(str(name), known)}"
            )
        if name in given:
            raise UsageError(f"{where}.{name} can't be set: the data decide it")
        if name in hints and not fits(value, hints[name]):
            raise UsageError(mismatch(f"{where}.{name}", value, hints[name]))
    for name, parameter in parameters.items():
        required = parameter.default is parameter.empty and parameter.kind in (
            parameter.POSITIONAL_OR_KEYWORD,
            parameter.KEYWORD_ONLY,
        )
        if required and name not in arguments and name not in given:
            raise UsageError(no_value(f"{where}.{name}"))


def _hints(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(inspect.getattr_static(cls, "__init__"))
    except NameError:  # a type imported for type checkers alone: the constructor must judge
        return {}
