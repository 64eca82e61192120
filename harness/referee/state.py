"""What a model keeps beside its parameters, and the source that it is made of."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

MOST_BESIDE = 4096  # numbers or characters outside parameters and buffers; settings are fewer


def buffer_values(model: nn.Module) -> int:
    """The numbers in buffers, as those that hold counts of a text."""
    return sum(buffer.numel() for buffer in model.buffers())


def hidden_values(model: nn.Module) -> dict[str, int]:
    """By attribute, the numbers and characters that lie in no parameter and no buffer: they would
    be in no count and in no checkpoint."""
    known = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    found = {}
    for path, module in model.named_modules():
        own = {**_class_values(type(module)), **vars(module)}
        for name, value in own.items():
            if name.startswith(("_forward", "_backward", "_state_dict", "_load_state")):
                continue
            if count := sum(_sizes(value, known, set())):
                found[f"{path}.{name}".lstrip(".")] = count
    return found


def _class_values(cls: type) -> dict[str, Any]:
    """Attributes of the classes that are not torch's."""
    return {
        name: value
        for each in reversed(cls.__mro__)
        if each.__module__.partition(".")[0] not in ("torch", "builtins", "transformers")
        for name, value in vars(each).items()
        if not name.startswith("__") and not callable(value)
    }


def _sizes(value: Any, known: set[int], seen: set[int]) -> Iterator[int]:
    if id(value) in known or id(value) in seen or isinstance(value, (nn.Module, type, ModuleType)):
        return
    if isinstance(value, torch.Tensor):
        yield value.numel()
    elif isinstance(value, np.ndarray):
        yield value.size
    elif isinstance(value, (str, bytes, bytearray)):
        yield len(value)
    elif isinstance(value, (bool, int, float)):
        yield 1
    elif isinstance(value, dict):
        seen.add(id(value))
        for inner in (*value.keys(), *value.values()):
            yield from _sizes(inner, known, seen)
    elif isinstance(value, (list, tuple, set, frozenset)):
        seen.add(id(value))
        for inner in value:
            yield from _sizes(inner, known, seen)


VERSIONED = ("torch", "transformers", "builtins")
_DIGESTS: dict[type, str] = {}


def model_digest(model: nn.Module) -> str:
    """SHA-256 of the source of the model's class and of all classes of modules in it."""
    classes = sorted({type(module) for module in model.modules()}, key=lambda cls: cls.__qualname__)
    digests = [source_digest(cls) for cls in classes]
    return hashlib.sha256(repr(digests).encode()).hexdigest()


def source_digest(cls: type) -> str:
    """SHA-256 of the modules that the class, its bases and what they use are defined in, as far as
    they lie in the same packages. Not of torch and transformers: a run records their versions."""
    if cls not in _DIGESTS:
        _DIGESTS[cls] = _digest_of_modules(cls)
    return _DIGESTS[cls]


def _digest_of_modules(cls: type) -> str:
    digest = hashlib.sha256()
    for name, module in sorted(_modules(cls).items()):
        try:
            source = inspect.getsource(module)
        except (OSError, TypeError):  # typed into a session
            source = ""
        digest.update(f"{name}\0{len(source)}\0{source}".encode())
    return digest.hexdigest()


def _modules(cls: type) -> dict[str, ModuleType]:
    bases = [base for base in cls.__mro__ if base.__module__.partition(".")[0] not in VERSIONED]
    packages = {base.__module__.partition(".")[0] for base in bases}
    found: dict[str, ModuleType] = {}
    waiting = [base.__module__ for base in bases]
    while waiting:
        name = waiting.pop()
        module = sys.modules.get(name)
        if module is None or name in found or name.partition(".")[0] not in packages:
            continue
        found[name] = module
        for value in list(vars(module).values()):
            inner = value.__name__ if isinstance(value, ModuleType) else None
            waiting.append(inner or getattr(value, "__module__", None) or "")
    return found
