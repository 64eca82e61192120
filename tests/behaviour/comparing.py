"""How two records differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

# Of an error: what it must still name, though it may name more.
MAY_GROW = ("names", "choices")


def unlike_machines(a: dict[str, Any], b: dict[str, Any]) -> str:
    """What makes numbers differ that no code changed; empty if nothing does."""
    one, other = a["machine"], b["machine"]
    unlike = [name for name in one if one[name] != other.get(name)]
    return ", ".join(f"{name}: {one[name]}, {other.get(name)}" for name in unlike)


def freeze(record: dict[str, Any]) -> dict[str, Any]:
    """The same, small: a digest for each part, its names in a table; refusals stay as they are."""
    schemas: dict[str, list[str]] = {}
    cases: dict[str, dict[str, Any]] = {}
    for case, parts in record["cases"].items():
        cases[case] = {}
        for part, values in parts.items():
            if "names" in values and "nearest" in values:
                cases[case][part] = values
                continue
            names = sorted(values)
            key = _digest(names)[:8]
            schemas[key] = names
            cases[case][part] = {"@names": key, "@sha256": _digest_of(values, names)}
    return {"machine": record["machine"], "schemas": schemas, "cases": cases}


def differences(a: dict[str, Any], b: dict[str, Any]) -> Iterator[str]:
    """A line for each thing of `a` that is missing in `b` or differs. a: maybe frozen; b: not."""
    for case, parts in a["cases"].items():
        if case not in b["cases"]:
            yield f"{case}: not there any more"
            continue
        for part, values in parts.items():
            where = f"{case}: {part}"
            others = b["cases"][case].get(part)
            if others is None:
                yield f"{where}: not there any more"
            elif "@names" in values:
                names = a["schemas"][values["@names"]]
                missing = [name for name in names if name not in others]
                yield from (f"{where}: {name}: not there any more" for name in missing)
                if not missing and _digest_of(others, names) != values["@sha256"]:
                    yield f"{where}: differs (record both revisions to see in what)"
            else:
                yield from (f"{where}: {line}" for line in _of_part(values, others))
        if case.startswith("mistake/"):
            left = sorted(set(b["cases"][case]) - set(parts))
            yield from (f"{case}: leaves {part}" for part in left)


def additions(a: dict[str, Any], b: dict[str, Any]) -> Iterator[str]:
    """What `b` has more: no fault."""
    for case, parts in b["cases"].items():
        if case not in a["cases"]:
            yield f"{case}: new"
            continue
        for part, values in parts.items():
            known = a["cases"][case].get(part)
            if known is None:
                yield f"{case}: {part}: new"
                continue
            if "@names" in known:
                known = a["schemas"][known["@names"]]
            yield from (f"{case}: {part}: {name}: new" for name in values if name not in known)


def _of_part(values: dict[str, Any], others: dict[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        if name not in others:
            yield f"{name}: not there any more"
        elif name == "one_line" and "nearest" in values:
            if value and not others[name]:
                yield "more than the one line it was"
        elif name in MAY_GROW and "nearest" in values:
            if gone := [each for each in value if each not in others[name]]:
                yield f"{name}: {', '.join(gone)} not there any more"
        elif type(value) is not type(others[name]) or value != others[name]:
            yield f"{name}: {_first_difference(value, others[name])}"


def _first_difference(one: Any, other: Any) -> str:
    if isinstance(one, list) and isinstance(other, list):
        for place, pair in enumerate(zip(one, other, strict=False)):
            if pair[0] != pair[1]:
                return f"[{place}] {_short(pair[0])} is now {_short(pair[1])}"
        return f"{len(one)} values are now {len(other)}"
    return f"{_short(one)} is now {_short(other)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:80]}…"


def _digest_of(values: dict[str, Any], names: list[str]) -> str:
    return _digest([[name, values[name]] for name in names])[:16]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=True).encode()).hexdigest()
