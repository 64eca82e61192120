"""What to think of a file in a run's folder that holds what no run writes."""

from __future__ import annotations

import json
import sys
from typing import Any


class DamageError(Exception):
    """A run's file holds what no run writes."""


def parse_json(text: str, where: str) -> dict[str, Any]:
    """A JSON object, without NaN and infinities. Raises DamageError for anything else."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        value = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        raise DamageError(f"{where} is not strict JSON") from None
    if not isinstance(value, dict):
        raise DamageError(f"{where} is not a JSON object")
    return value


def is_finite(value: Any) -> bool:
    """Whether a value is a number, and not NaN or infinite."""
    # An integer may be too large for a float, where math.isfinite raises.
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) <= sys.float_info.max
