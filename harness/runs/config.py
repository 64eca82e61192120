"""config.yaml, read for display and comparison: as plain values, or flat. `harness.config.saved`
reads it as typed settings."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from harness.common import contained
from harness.config.saved import reject_nesting
from harness.config.settings import Role, Settings, keys_with_role
from harness.runs.damage import DamageError

FILE = "config.yaml"
# What runs of earlier versions lack, with the value that they had, beside the settings' defaults.
AS_BEFORE = ("data.order", "random")
# Folders of the first versions hold Hydra's own settings, too.
NOT_CONFIGURATION = keys_with_role(Role.SAME_CONFIGURATION) | {"hydra"}


class _NoAliases(yaml.SafeLoader):
    """No run writes aliases, and a few nested ones can fill any memory."""

    def compose_node(self, parent: Any, index: int) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias")
        return super().compose_node(parent, index)


def parse_yaml(text: str) -> Any:
    """The configuration as plain values. Raises DamageError."""
    try:
        reject_nesting(text)
        return yaml.load(text, _NoAliases)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise DamageError(f"{FILE} is not plain YAML") from None


def read_flat(folder: Path) -> dict[str, str]:
    """The settings that tell configurations apart: dotted keys, values as text. Raises DamageError
    and OSError."""
    config = parse_yaml(contained.read_text(folder / FILE))
    if not isinstance(config, dict):
        raise DamageError(f"{FILE} is not a mapping")
    return {
        key: text
        for key, text in (_defaults() | dict(_flatten(config))).items()
        if (key, text) != AS_BEFORE
        and not any(key == name or key.startswith(f"{name}.") for name in NOT_CONFIGURATION)
    }


@functools.cache
def _defaults() -> dict[str, str]:
    return dict(_flatten(Settings.defaults()))


def as_text(value: Any) -> str:
    """A plain value on one line. Raises DamageError for a value that no run writes."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, default=str, sort_keys=True)
    except (TypeError, ValueError) as error:  # keys of several types; a number of 5,000 digits
        raise DamageError(f"a setting that no run writes ({error})") from None


def _flatten(config: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", as_text(value)
