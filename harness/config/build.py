"""Builds objects from configuration. Only a class from a trusted package that implements the
requested interface is built."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from harness.common.errors import UsageError
from harness.common.values import did_you_mean, fits, show
from harness.config.keys import Node, dotted, mismatch, no_value, walk

TRUSTED = ("zoo", "zoo_tokenizers", "harness", "torch.optim")
WRAPPER = "zoo.plain.Plain"  # of a plain torch module, as a model
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
    around: type = cls
    for name, inner in _wrapped_classes(cls, arguments, where, trust).items():
        arguments[name] = inner
        # It gets what the class around it does not take, and what both of them do.
        outer, own = parameters_of(around), parameters_of(inner)
        passed = {key: arguments[key] for key in arguments if key not in outer or key in own}
        _check_arguments(inner, passed, {key: given[key] for key in given if key in own}, where)
    return cls, arguments


def settings_taken(node: Node, where: str, trust: Iterable[str] = ()) -> set[str]:
    """The settings that the class of `node`, and a class that it wraps, take by name; errors as in
    `resolve_class`."""
    cls = resolve_class(str(node.get("_target_")), object, where, trust)
    classes = [cls, *_wrapped_classes(cls, node, where, trust).values()]
    return {name for each in classes for name in parameters_of(each)}


@functools.cache
def parameters_of(cls: type) -> Mapping[str, inspect.Parameter]:
    """What its constructor takes. For a class without one of its own Python parses a text: 1 ms."""
    return inspect.signature(cls).parameters


def resolve_class(
    target: str, interface: type[T], where: str, trust: Iterable[str] = (), key: str = "_target_"
) -> type[T]:
    """The class named `target` by `where`.`key`. Raises UsageError if it is not a trusted
    `interface`."""
    trusted = require_trusted_class(target, where, trust, key)
    cls = _named(target, f"{where}.{key}", trust)
    # A trusted module may import untrusted classes: the class itself must be defined in one.
    own = inspect.isclass(cls) and not inspect.isabstract(cls) and _under(cls.__module__, trusted)
    if not (own and issubclass(cls, interface) and cls is not interface):
        line = f"{where}.{key}={target} is not a concrete {interface.__name__}"
        if own and (where, key) == ("model", "_target_") and not issubclass(cls, interface):
            line += _wrapped(cls, target)
        raise UsageError(line)
    return cls


def _wrapped(cls: type, target: str) -> str:
    """How a plain torch module becomes a model; nothing for another class."""
    bases = {f"{base.__module__}.{base.__name__}" for base in cls.__mro__[1:]}
    if "torch.nn.modules.module.Module" not in bases:
        return ""
    return f"; a plain torch module: model._target_={WRAPPER} model.module={target}"


def resolve_function(target: str, where: str, trust: Iterable[str] = ()) -> Callable[..., Any]:
    """The function named `target`. Raises UsageError if it is none, or not of a trusted package."""
    trusted = require_trusted_class(target, where, trust, None)
    function = _named(target, where, trust)
    if not (inspect.isfunction(function) and _under(function.__module__, trusted)):
        raise UsageError(f"{where}: {target} is not a function of {target.partition('.')[0]}")
    return function


def _named(target: str, where: str, trust: Iterable[str]) -> Any:
    """What its module calls so."""
    module_name, _, name = target.rpartition(".")
    try:
        return getattr(_import(module_name, trust), name)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"{where}={target} does not exist: {error}") from error


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


def require_trusted_class(
    target: str, where: str, trust: Iterable[str], key: str | None = "_target_"
) -> tuple[str, ...]:
    """The trusted packages. Raises UsageError if `target`, which `where`.`key` names, or `where`
    itself, lies in none of them."""
    where = where if key is None else f"{where}.{key}"
    trusted = (*TRUSTED, *trust)
    if not _under(target.rpartition(".")[0], trusted):
        package = target.partition(".")[0]
        raise UsageError(
            f"{where}={target} lies outside the trusted packages ({', '.join(trusted)}); "
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


def _wrapped_classes(
    cls: type, arguments: Node, where: str, trust: Iterable[str]
) -> dict[str, type]:
    """The classes that arguments of the type `type[X]` name. They must be trusted as well."""
    return {
        name: resolve_class(str(arguments[name]), typing.get_args(hint)[0], where, trust, name)
        for name, hint in _hints(cls).items()
        if typing.get_origin(hint) is type and name in arguments
    }


def _check_arguments(cls: type, arguments: Node, given: Mapping[str, Any], where: str) -> None:
    """Check arguments against the constructor's signature, so that a typo is never ignored."""
    parameters = parameters_of(cls)
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
