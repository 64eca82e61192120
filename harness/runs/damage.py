"""Damage: a file in a run's folder that holds what no run writes."""

from __future__ import annotations

import json
import math
import sys
from typing import Any


class DamageError(Exception):
    """A file in a run's folder holds what no run writes."""


def parse_json(text: str, where: str) -> dict[str, Any]:
    """A JSON object, without NaN and infinities. Raises DamageError for anything else."""
    try:
        value = json.loads(text, parse_constant=refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError):
        raise DamageError(f"{where} is not strict JSON") from None
    if not isinstance(value, dict):
        raise DamageError(f"{where} is not a JSON object")
    return value


def _finite(text: str) -> float:
    if math.isinf(number := float(text)):
        refuse_constant(text)  # 1e999
    return number


def refuse_constant(constant: str) -> None:
    """For `parse_constant` of the json module. Raises ValueError."""
    raise ValueError(f"{constant} is not strict JSON")


def is_finite(value: Any) -> bool:
    """Whether a value is a number (bool is not), and neither NaN nor infinite."""
    # math.isfinite raises OverflowError for an integer that is too large for a float.
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) <= sys.float_info.max
