"""Loads the state of a checkpoint and trusts nothing of it.

Values are copied into what the run itself has made: names, shapes, dtypes and types must be the
same, and every tensor keeps its own memory, strides and device. A digest proves no good will: who
changes a file can change its digest, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from harness.common.values import show
from zoo.language_model import LanguageModel

MAX_DEPTH = 16  # of nests; a checkpoint of ours has less than ten
MAX_ENTRIES = 2_000_000
PLAIN = (type(None), bool, int, float, str)


def require_ordinary(contents: object) -> None:
    """Raises ValueError, naming the entry, unless all tensors of a nest are dense and on the CPU,
    and no two elements of one share memory; and for a nest without end."""
    for number, (name, value) in enumerate(_leaves(contents, "", MAX_DEPTH)):
        if number == MAX_ENTRIES:
            raise ValueError(f"it has more than {MAX_ENTRIES:,} entries")
        if isinstance(value, Tensor) and (flaw := _flaw(value)):
            raise ValueError(f"{name} is {flaw}")


def restored(own: Any, saved: object, name: str) -> Any:
    """`own`, with the values of `saved`: tensors and containers in place, others replaced.

    What is None in `own` may have any plain value. NaN and infinity are values like others: a
    moment may overflow. Raises ValueError, naming the entry, where the two are not alike.
    """
    if isinstance(own, Tensor):
        with torch.no_grad():
            return own.copy_(require_alike(own, saved, name))
    if isinstance(own, dict):
        given = require_names(own, saved, name)
        for key in own:
            own[key] = restored(own[key], given[key], f"{name}.{key}")
        return own
    if isinstance(own, list | tuple):
        if not isinstance(saved, list | tuple) or len(saved) != len(own):
            raise ValueError(f"{name} is {show(saved)}, not {len(own)} values")
        pairs = enumerate(zip(own, saved, strict=True))
        values = [restored(*pair, f"{name}.{at}") for at, pair in pairs]
        if isinstance(own, tuple):
            return tuple(values)
        own[:] = values
        return own
    if type(own) not in PLAIN:
        raise ValueError(f"{name} is of type {type(own).__name__}, which no checkpoint holds")
    if type(saved) not in (PLAIN if own is None else (type(own),)):
        raise ValueError(f"{name} is {show(saved)}, of type {type(saved).__name__}")
    if type(saved) is int and not -(2**63) <= saved < 2**63:
        raise ValueError(f"{name} is an integer of more than 64 bits")
    return saved


def load_weights(model: nn.Module, saved: object, name: str) -> None:
    """Load a module's state_dict. Raises ValueError, naming the entry, where the two are not alike,
    and for a NaN or infinite parameter, which no run saves."""
    model.load_state_dict(require_weights(model, saved, name))
    for key, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise ValueError(f"{name}.{key} has NaN or infinite values")


def require_weights(model: nn.Module, saved: object, name: str) -> dict[str, Any]:
    """`saved`, the state_dict of a module like this one. Raises ValueError."""
    given = require_names(model.state_dict(), saved, name)
    if isinstance(model, LanguageModel) and model.fit is not None:
        model.resize({key: require_tensor(given[key], f"{name}.{key}") for key in given})
    own = model.state_dict()
    for key, value in own.items():
        if isinstance(value, Tensor):
            require_alike(value, given[key], f"{name}.{key}")
    return given


def require_names(own: dict[Any, Any], saved: object, name: str) -> dict[Any, Any]:
    """`saved`, which has the keys of `own` and no others. Raises ValueError."""
    if not isinstance(saved, dict):
        raise ValueError(f"{name} is {show(saved)}, not named values")
    for key in own:
        if key not in saved:
            raise ValueError(f"{name}.{key} is missing")
    for key in saved:
        if key not in own:
            raise ValueError(f"{name}.{show(key)} is not part of the run")
    return saved


def require_tensor(saved: object, name: str) -> Tensor:
    """`saved`, if it is a tensor. Raises ValueError."""
    if not isinstance(saved, Tensor):
        raise ValueError(f"{name} is {show(saved)}, not a tensor")
    return saved


def require_alike(own: Tensor, saved: object, name: str) -> Tensor:
    """`saved`, a tensor of the shape and dtype of `own`. Raises ValueError."""
    saved = require_tensor(saved, name)
    if (saved.dtype, saved.shape) != (own.dtype, own.shape):
        raise ValueError(f"{name} is {_describe(saved)}; the run has {_describe(own)}")
    return saved


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _leaves(node: object, name: str, depth: int) -> Iterator[tuple[str, object]]:
    """The values of a nest and their dotted names."""
    if isinstance(node, dict | list | tuple | set):
        if depth == 0:
            raise ValueError(f"{name} is nested more than {MAX_DEPTH} deep")
        pairs = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in pairs:
            yield from _leaves(value, f"{name}.{show(key)}".lstrip("."), depth - 1)
    yield name, node  # a container counts, too: empty ones could be endless


def _flaw(tensor: Tensor) -> str | None:
    """Why a tensor is not an ordinary one, or None."""
    if tensor.is_nested or tensor.layout is not torch.strided:
        return "a sparse or nested tensor"
    if tensor.is_quantized:
        return "a quantized tensor"
    if tensor.device.type != "cpu":  # although loaded to it: without memory
        return f"a tensor of device {tensor.device.type}"
    if type(tensor) not in (Tensor, nn.Parameter):
        return f"a {type(tensor).__name__}"
    extent = 1  # elements from the first to the last of the axes so far, by rising strides
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and tensor.numel():
            if stride < extent:
                return "a tensor whose elements share memory"
            extent += stride * (size - 1)
    return None
