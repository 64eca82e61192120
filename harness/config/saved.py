"""Reads settings from a run's folder."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.common import contained
from harness.common.errors import UsageError
from harness.config.complaints import one_line
from harness.config.settings import Settings, read_settings

# Class names of version 0.1 and their present ones, so that its runs can still be read.
MOVED = {
    **{
        f"harness.data.{name}": f"harness.data.corpus.{name}"
        for name in ("Download", "PythonDocs", "TextFile")
    },
    **{
        f"harness.schedule.{name}": f"harness.training.schedules.{name}"
        for name in ("Constant", "Cosine", "InverseSqrt", "Linear", "StableDecay", "Step")
    },
    "harness.lion.Lion": "harness.training.lion.Lion",
    "harness.loggers.Local": "harness.loggers.local.Local",
    "harness.optim.Muon": "harness.training.muon.Muon",
}
MOST_BRACKETS = 1000


def load_settings(path: Path) -> Settings:
    """The settings of a run's config.yaml, except for `trust` and `metrics`, which only the user
    may set.

    Raises UsageError if the file can't be read or is invalid.
    """
    try:
        text = contained.read(path).decode()
        reject_nesting(text)
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise ValueError("YAML aliases are not allowed: a few of them can fill the memory")
        # A run writes resolved values. ${oc.env:…} stays text: it could read a secret.
        plain: Any = OmegaConf.to_container(OmegaConf.load(io.StringIO(text)), resolve=False)
        return read_settings(with_moved_classes(plain)).replace(trust=[], metrics=[])
    except FileNotFoundError as error:
        raise UsageError(f"{path.parent} is not a run's folder: it has no {path.name}") from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise UsageError(f"{path} can't be read: {one_line(error)}") from error


def reject_nesting(text: str) -> None:
    """Raises ValueError for so many brackets that parsing would take minutes: its time grows with
    the square of the depth."""
    most = int(MOST_BRACKETS * contained.factor())
    if text.count("[") + text.count("{") > most:
        raise ValueError(
            f"more than {most:,} brackets; if you trust it, multiply all limits: "
            f"{contained.FACTOR}=10"
        )


def with_moved_classes(plain: Any) -> Any:
    """Plain settings with the present class names."""
    if isinstance(plain, list):
        return [with_moved_classes(value) for value in plain]
    if not isinstance(plain, dict):
        return plain
    return {
        key: MOVED.get(value, value)
        if key == "_target_" and isinstance(value, str)
        else with_moved_classes(value)
        for key, value in plain.items()
    }
