"""How many examples Hypothesis tries of a property."""

from __future__ import annotations

from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

UNHURRIED = [HealthCheck.too_slow, HealthCheck.data_too_large]  # on a busy machine all is slow


def tried(times: int) -> hypothesis_settings:
    return hypothesis_settings(max_examples=times, deadline=None, suppress_health_check=UNHURRIED)
