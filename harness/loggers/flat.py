"""A run's settings and results as the flat tables that loggers' pages sort by."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.config.settings import Settings


def flat_settings(settings: Settings) -> dict[str, Any]:
    """By the keys that the command line knows: {"optimizer.lr": 0.001, …}."""
    return _flatten(settings.plain(), ".")


def flat_results(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What a run came to: {"status": "finished", "test/bits_per_byte": …, "train/tokens": …, …}.

    Without `val`, which is `best` again under names that rows have.
    """
    return _flatten({name: value for name, value in summary.items() if name != "val"}, "/")


def final_scores(summary: Mapping[str, Any]) -> dict[str, float]:
    """The scores that belong to the run and to no row: {"test/…": …, "best/…": …}."""
    scores = flat_results({name: summary.get(name) for name in ("test", "best")})
    return {name: value for name, value in scores.items() if value is not None}


def sweep_of(folder: Path) -> str | None:
    """The name of the sweep that a run's folder lies in."""
    return folder.absolute().parent.name if (folder.parent / "multirun.yaml").exists() else None


def _flatten(node: Mapping[str, Any], separator: str, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in node.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, separator, f"{prefix}{name}{separator}")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
