"""The settings that there are, and what to say of one that is wrong."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from omegaconf import DictConfig, OmegaConf

from harness.common.paths import CONF
from harness.common.values import closest, describe, nearest, show


def no_setting(key: str, known: Iterable[str] = ()) -> str:
    """What to say of a key that does not exist, with the nearest of those that do."""
    known = list(known) or list(_known_keys())
    group, _, name = key.rpartition(".")
    inside = [each.rpartition(".")[2] for each in known if each.rpartition(".")[0] == group]
    if not group or not inside:
        hint = nearest(key, known)
    elif near := closest(name, inside):
        hint = f" Did you mean {group}.{near}?"
    else:
        hint = f" {group} has: {', '.join(dict.fromkeys(inside))}"
    return f"there is no setting {show(key)}.{hint}"


def _known_keys() -> Iterable[str]:
    """Every group and every dotted key of any file in conf/."""
    yield "hydra.sweep.dir"
    for path in sorted(CONF.rglob("*.yaml")):
        group = path.relative_to(CONF).parent.as_posix()
        if group == "experiment":
            continue
        yield from ([] if group == "." else [group])
        yield from dotted_keys(OmegaConf.load(path), "" if group == "." else f"{group}.")


def dotted_keys(node: object, prefix: str = "") -> Iterable[str]:
    """Every key inside a configuration, groups and settings."""
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
    """What to say of a value that is not of the setting's type."""
    wants_text = isinstance(value, (bool, int, float)) and describe(hint).startswith("text")
    quoted = f"; as text: '{key}=\"{show(value)}\"'" if wants_text else ""
    return f"{key}={show(value)} should be {describe(hint)}{quoted}"


def no_value(key: str) -> str:
    """What to say of a setting that was left out."""
    names = ", ".join(names_in_group(key))
    return f"{key} has no value; give one: {key}=…" + (f" (one of {names})" if names else "")
