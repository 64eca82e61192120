"""Keys of settings, and error messages about them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from harness.common.paths import CONF
from harness.common.values import describe, did_you_mean, nearest, show

Node = dict[str, Any]
"""A group of settings; `_target_` names the class to build from it."""
KeyPath = tuple[str | int, ...]


def walk(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Every value inside plain settings with its path; a group comes before its members."""
    yield path, value
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from walk(inner, (*path, str(name)))
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            yield from walk(inner, (*path, position))


def dotted(path: KeyPath) -> str:
    """The path as a key: `train.steps`, `optimizer.betas[1]`."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return "".join(parts).removeprefix(".")


def no_setting(key: str, known: Iterable[str] = ()) -> str:
    """The message for a key that does not exist, with the nearest of the `known` keys."""
    known = list(known) or list(known_keys())
    group, _, name = key.rpartition(".")
    inside = [each.rpartition(".")[2] for each in known if each.rpartition(".")[0] == group]
    if not group or not inside:
        hint = did_you_mean(key, known)
    elif near := nearest(name, inside):
        hint = f" Did you mean {group}.{near}?"
    else:
        hint = f" {group} has: {', '.join(dict.fromkeys(inside))}"
    return f"there is no setting {show(key)}.{hint}"


def known_keys() -> Iterable[str]:
    """Every group and every dotted key of the files in conf/."""
    yield "hydra.sweep.dir"
    for path in sorted(CONF.rglob("*.yaml")):
        group = path.relative_to(CONF).parent.as_posix()
        if group == "experiment":
            continue
        yield from ([] if group == "." else [group])
        yield from dotted_keys(OmegaConf.load(path), "" if group == "." else f"{group}.")


def dotted_keys(node: object, prefix: str = "") -> Iterable[str]:
    """Every key of a configuration, groups included."""
    if isinstance(node, DictConfig):
        for key in map(str, node):
            if key in ("defaults", "hydra"):
                continue
            yield f"{prefix}{key}"
            yield from dotted_keys(node._get_node(key), f"{prefix}{key}.")


def names_in_group(group: str) -> list[str]:
    """The names of the files in a group of conf/."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def mismatch(key: str, value: Any, hint: Any) -> str:
    """The message for a value of the wrong type."""
    wants_text = isinstance(value, (bool, int, float)) and describe(hint).startswith("text")
    quoted = f"; as text: '{key}=\"{show(value)}\"'" if wants_text else ""
    return f"{key}={show(value)} should be {describe(hint)}{quoted}"


def no_value(key: str) -> str:
    """The message for a setting without a value."""
    names = ", ".join(names_in_group(key))
    return f"{key} has no value; give one: {key}=…" + (f" (one of {names})" if names else "")
