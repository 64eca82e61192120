"""Builds objects from configuration. Only a class from a trusted package that implements the
requested interface is built."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from harness.common.errors import UsageError
from harness.common.values import did_you_mean, fits, show
from harness.config.keys import Node, dotted, mismatch, no_value, walk

TRUSTED = ("zoo", "zoo_tokenizers", "harness", "torch.optim")
T = TypeVar("T")


def build_object(
    node: Node, interface: type[T], where: str, trust: Iterable[str] = (), **given: Any
) -> T:
    """Build the object that `node` describes by `_target_` and its arguments.

    where: the node's key, for messages. given: arguments that configuration can't set.
    Raises UsageError if the class is not trusted, does not implement `interface`, or rejects an
    argument.
    """
    cls, arguments = check_object(node, interface, where, trust, **given)
    try:
        return cls(**arguments, **given)
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from error


def check_object(
    node: Node, interface: type[T], where: str, trust: Iterable[str] = (), **given: Any
) -> tuple[type[T], Node]:
    """The class and the arguments of `node`, checked but not built; errors as in `build_object`."""
    cls = resolve_class(str(node.get("_target_")), interface, where, trust)
    arguments = {key: value for key, value in node.items() if key != "_target_"}
    _check_arguments(cls, arguments, given, where)
    return cls, arguments


def resolve_class(
    target: str, interface: type[T], where: str, trust: Iterable[str] = ()
) -> type[T]:
    """The class named `target`. Raises UsageError if it is not a trusted `interface`."""
    trusted = require_trusted_class(target, where, trust)
    module_name, _, class_name = target.rpartition(".")
    try:
        cls = getattr(_import(module_name, trust), class_name)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"{where}._target_={target} does not exist: {error}") from error
    # A trusted module may import untrusted classes: the class itself must be defined in one.
    if not (
        inspect.isclass(cls)
        and issubclass(cls, interface)
        and cls is not interface
        and not inspect.isabstract(cls)
        and _under(cls.__module__, trusted)
    ):
        raise UsageError(f"{where}._target_={target} is not a concrete {interface.__name__}")
    return cls


def _import(name: str, trust: Iterable[str]) -> types.ModuleType:
    """The module, which may lie in the working folder if the user trusts its package. Only while it
    is imported is that folder on the path, and behind all others (harness/__init__.py)."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not _under(error.name or "", tuple(trust)):
            raise
    sys.path.append(here := os.getcwd())
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(here)


def require_trusted_class(target: str, where: str, trust: Iterable[str]) -> tuple[str, ...]:
    """The trusted packages. Raises UsageError if `target` lies in none of them."""
    trusted = (*TRUSTED, *trust)
    if not _under(target.rpartition(".")[0], trusted):
        package = target.partition(".")[0]
        raise UsageError(
            f"{where}._target_={target} lies outside the trusted packages ({', '.join(trusted)}); "
            f"if you trust it, set trust=[{package}] (--trust {package} for a finished run)"
        )
    return trusted


def reject_nested_targets(node: Node, where: str) -> None:
    """Raises UsageError for a `_target_` below the top level: only `node` itself is built."""
    for path, value in walk(node):
        if len(path) > 1 and path[-1] == "_target_":
            raise UsageError(
                f"{where}.{dotted(path)}={show(value)}: only {where} itself names a class"
            )


def _under(module: str, packages: Sequence[str]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def _check_arguments(cls: type, arguments: Node, given: Mapping[str, Any], where: str) -> None:
    """Check arguments against the constructor's signature, so that a typo is never ignored."""
    parameters = dict(inspect.signature(cls).parameters)
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    hints = _hints(cls)
    for name, value in arguments.items():
        if name not in parameters and not takes_any:
            known = [choice for choice in parameters if choice not in given]
            raise UsageError(
                f"there is no setting {where}.{name}: {cls.__name__} does not have it."
                f"{did_you_mean(str(name), known)}"
            )
        if name in given:
            raise UsageError(f"{where}.{name} can't be set: it follows from the data")
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
    except NameError:  # a type that is imported for type checkers only: the constructor must check
        return {}
