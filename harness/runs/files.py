"""The files of a run's folder, read as what a run writes: anything else is damage."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.common.text import printable
from harness.config.settings import Role, keys_with
from harness.runs import blocks, metrics, samples
from harness.runs.blocks import Blocks
from harness.runs.damage import DamageError, is_finite, parse_json

# What a comparison takes of a row that has a validation score; observability may add much more.
COSTS = ("step", "tokens", "bytes", "flops", "seconds")
SCORES = ("val/bits_per_byte", "val/nats_per_token")
# Hydra's own settings are in no folder but those of very old runs.
NOT_CONFIGURATION = keys_with(Role.SAME_CONFIGURATION) | {"hydra"}


@dataclass(frozen=True)
class Metrics:
    """What metrics.jsonl says: a run of a million steps must fit in memory many times.

    evaluations: the rows that have a validation score, with their costs. losses: (N, 2),
    every step's number and training loss in nats per token. last_step: None if there is no row.
    """

    evaluations: Sequence[Mapping[str, float]] = ()
    losses: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))
    last_step: float | None = None


def read_metrics(path: Path) -> Metrics:
    """Raises DamageError for a line that is no row, unless a kill tore it."""
    evaluations, losses, last_step = [], [], None
    for number, (_, row) in enumerate(metrics.rows(path), start=1):
        if row is None:
            raise DamageError(f"{path.name} line {number} is not a row of strict JSON with a step")
        last_step = number_at(row, "step")
        loss = row.get("train/loss")
        if is_finite(loss):
            losses.append((last_step, loss))
        if any(name in row for name in SCORES):
            kept = {name: row[name] for name in (*COSTS, *SCORES) if is_finite(row.get(name))}
            evaluations.append(kept)
    return Metrics(evaluations, np.array(losses, dtype=np.float64).reshape(-1, 2), last_step)


def read_config(path: Path) -> dict[str, str]:
    """Flat: dotted keys, values as text; without what does not tell configurations apart."""
    config = plain_yaml(path.read_text(encoding="utf-8", errors="replace"), path.name)
    if not isinstance(config, dict):
        raise DamageError(f"{path.name} is not a mapping")
    return {
        key: text
        for key, text in _flatten(config)
        if not any(key == name or key.startswith(name + ".") for name in NOT_CONFIGURATION)
    }


def plain_yaml(text: str, where: str) -> Any:
    """What a configuration says. Aliases, which no run writes and ten of which can fill any memory,
    are damage."""
    import yaml

    class Plain(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: int) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("an alias")
            return super().compose_node(parent, index)

    try:
        return yaml.load(text, Plain)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise DamageError(f"{where} is not plain YAML") from None


def read_blocks(path: Path) -> Blocks | None:
    """None where there are none: the tokenizer is lossy, or the run is older than they are."""
    if not path.exists():
        return None
    try:
        return blocks.parse(parse_json(path.read_text(encoding="utf-8"), path.name))
    except (ValueError, UnicodeDecodeError) as error:
        raise DamageError(f"{path.name}: {error}") from None


def last_sample(path: Path) -> tuple[int | None, str | None]:
    """The step and the text of the last sample."""
    found = samples.read(path)
    return (found[-1].step, printable(found[-1].text)) if found else (None, None)


def number_at(within: Mapping[str, Any], key: str) -> float | None:
    value = within.get(key)
    if value is not None and not is_finite(value):
        raise DamageError(f"{key} is not a finite number: {value!r:.40}")
    return value


def _flatten(config: Mapping[Any, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", as_text(value)


def as_text(value: Any) -> str:
    """A plain value in one line. Raises DamageError for what no run writes."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, default=str, sort_keys=True)
    except (TypeError, ValueError) as error:  # keys of several types; a number of 5,000 digits
        raise DamageError(f"a setting that no run writes ({error})") from None
