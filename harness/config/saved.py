"""Settings read back from a run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from harness.common.errors import UsageError
from harness.config.complaints import one_line
from harness.config.settings import Settings, read_settings

# Classes that have moved since version 0.1: from where its folders say they are, to where they are.
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
    "harness.optim.Muon": "harness.training.muon.Muon",
    "harness.loggers.Local": "harness.loggers.local.Local",
}


def load_settings(path: Path) -> Settings:
    """The settings of a run's config.yaml. What it trusts does not count: only the user says.

    Raises UsageError for a file that holds anything else.
    """
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(path.read_text())):
            raise ValueError("it holds aliases, ten of which can fill any memory")
        # What a run writes is resolved: a ${oc.env:…} in it is text, or it would read our secrets.
        plain: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        return read_settings(with_moved_classes(plain)).replace(trust=[])
    except FileNotFoundError as error:
        raise UsageError(f"{path.parent} is not a run's folder: it has no {path.name}") from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UsageError(f"{path} can't be read: {one_line(error)}") from error


def with_moved_classes(plain: Any) -> Any:
    """Plain settings, each class named by where it lies now."""
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
