"""Settings whose values go together in a sweep: the first of one with the first of the others.

Hydra's sweeper combines every value with every other one. So values that go together are given to
it as values of one setting, JOINED, which the loader takes apart before it composes a job.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from harness.common.errors import UsageError
from harness.common.values import did_you_mean

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

JOINED = "sweep.joined"


def joined(overrides: Iterable[Override], together: Sequence[str]) -> list[str]:
    """The overrides of a sweep as text; those of the settings `together` as one, where the first of
    them stands.

    Raises UsageError if one of them is not set there, or has another number of values.
    """
    typed = {each.get_key_element(): each for each in overrides}  # of two for one key the last
    named = {key.lstrip("+~"): key for key in typed}
    values: dict[str, list[str]] = {}
    for name in together:
        if name not in named:
            raise UsageError(
                f"sweep.together: this sweep gives {name} no values.{did_you_mean(name, named)}"
            )
        values[named[name]] = _overrides(typed[named[name]])
    if len(set(map(len, values.values()))) > 1:
        counts = ", ".join(f"{key} has {len(own)}" for key, own in values.items())
        raise UsageError(f"sweep.together needs as many values of each setting: {counts}")
    lines = {key: each.input_line or "" for key, each in typed.items() if key not in values}
    place = next((key for key in typed if key in values), None)
    return [
        _as_one(zip(*values.values(), strict=True)) if key == place else lines[key]
        for key in typed
        if key in lines or key == place
    ]


def apart(overrides: Iterable[str]) -> list[str]:
    """The overrides of a job, each by itself."""
    return [
        each
        for override in overrides
        for each in (_parts(override) if override.startswith(f"{JOINED}=") else [override])
    ]


def _overrides(override: Override) -> list[str]:
    """One for each value."""
    if not override.is_sweep_override():
        return [override.input_line or ""]
    key = override.get_key_element()
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def _as_one(cases: Iterable[tuple[str, ...]]) -> str:
    from hydra.core.override_parser.types import Quote, QuotedString

    texts = [QuotedString(json.dumps(case), Quote.single).with_quotes() for case in cases]
    return f"{JOINED}={','.join(texts)}"


def _parts(override: str) -> list[str]:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    value = OverridesParser.create().parse_override(override).value()
    try:
        parts = json.loads(value) if isinstance(value, str) else None
    except ValueError:
        parts = None
    return parts if isinstance(parts, list) else [override]  # that a user has typed: no setting
