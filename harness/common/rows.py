"""Metric rows. A row holds the metrics of one step: {"step": …, name: value, …}. A value is a
number, None (undefined at this step) or a Histogram."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Histogram:
    """counts[i] values lie between edges[i] and edges[i + 1]."""

    counts: list[int]
    edges: list[float]


def strict_json(value: Any, indent: int | None = None) -> str:
    """JSON that every parser reads: NaN and infinities become null, a Histogram becomes
    {"counts": […], "edges": […]}."""
    try:
        return json.dumps(value, allow_nan=False, indent=indent, default=_plain)
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False, indent=indent)


def _plain(value: Any) -> dict[str, Any]:
    if isinstance(value, Histogram):
        return vars(value)
    raise TypeError(f"{type(value).__name__} can't be written as JSON")


def _finite(value: Any) -> Any:
    if isinstance(value, Histogram):
        value = vars(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list) else value
