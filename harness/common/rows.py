"""Rows of numbers. A row is everything known of one step: {"step": …, name: value, …}; a value is a
number, None (not defined there) or a Histogram."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Histogram:
    """How values are spread: counts[i] of them lie between edges[i] and edges[i + 1]."""

    counts: list[int]
    edges: list[float]


def strict_json(value: Any, indent: int | None = None) -> str:
    """JSON as every parser reads it: NaN and infinities, which JSON lacks, become null; a Histogram
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
