"""Two trainings compared bit for bit, by what lies in their folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.common.rows import strict_json
from harness.runs import blocks, checkpoint, config, metrics, process, samples, summary
from harness.runs.checkpoint import BestCheckpoint, StepCheckpoint

Trace = list[dict[str, Any]]
"""Each row's step, and its numbers as hexadecimal floats."""

# What may differ between equal trainings: times, and what a resumed run remembers of its past.
MEASURED = ("seconds", "evaluation_seconds", "tokens_per_second", "peak_memory_bytes")
MAY_DIFFER = (
    "progress.seconds",
    "progress.evaluation_seconds",
    "progress.saved_best",
    "progress.kept_best",
)  # keys of a checkpoint
NO_RESULT = ("git",)  # of summary.json
EXACT_FILES = (samples.FILE, blocks.FILE, "train_counts.npy", "tokenizer/*")


def run_differences(one: Path, other: Path) -> list[str]:
    """A line for each difference between two runs' folders; none if they are equal bit for bit.

    Compared are rows, summary, settings, samples, blocks, tokenizer, and the last and best weights.
    """
    found = row_differences(trace(one), trace(other))
    plain, other_plain = (
        json.loads((folder / summary.FILE).read_text()) for folder in (one, other)
    )
    found += [
        f"{summary.FILE}: {key} is {b}, not {a}"
        for key, a, b in _pairs(plain, other_plain)
        if not _same(a, b) and key.split(".")[0] not in NO_RESULT
        if key.rpartition(".")[2] not in MEASURED
    ]
    settings, others = config.read_flat(one), config.read_flat(other)
    found += [
        f"{config.FILE}: {key} is {others.get(key)}, not {settings.get(key)}"
        for key in {**settings, **others}
        if settings.get(key) != others.get(key)
    ]
    contents, other_contents = (
        {
            str(path.relative_to(folder)): path.read_bytes()
            for pattern in EXACT_FILES
            for path in folder.glob(pattern)
        }
        for folder in (one, other)
    )
    found += [
        f"{name} differs"
        for name in {**contents, **other_contents}
        if contents.get(name) != other_contents.get(name)
    ]
    for kind, name in ((StepCheckpoint, "last"), (BestCheckpoint, "best")):
        state, other_state = (
            checkpoint.load(folder / "checkpoints", kind) for folder in (one, other)
        )
        found += [
            f"the {name} checkpoint: {key} differs"
            for key in differing_keys(state and vars(state), other_state and vars(other_state))
            if not key.startswith(MAY_DIFFER)
        ]
    return found


def leftovers(folder: Path) -> list[str]:
    """Temporary files, and marks of a process that is gone, anywhere in a folder."""
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and (path.name.startswith(".") or path.name == process.FILE)
    )


def trace(run: Path) -> Trace:
    """The rows of a run, but for their seconds."""
    return [
        {name: value if name == "step" else _hex(value) for name, value in row.items()}
        for _, whole in metrics.rows(run / metrics.FILE)
        if whole is not None
        for row in [{name: value for name, value in whole.items() if name != "seconds"}]
    ]


def row_differences(one: Trace, other: Trace) -> list[str]:
    found = [
        f"step {a['step']}: {name} is {b.get(name)}, not {a.get(name)}"
        for a, b in zip(one, other, strict=False)
        for name in {**a, **b}
        if a.get(name) != b.get(name)
    ]
    return found + ([f"{len(other)} rows, not {len(one)}"] if len(one) != len(other) else [])


def differing_keys(one: Any, other: Any) -> list[str]:
    """The dotted keys at which two nests of tensors and plain values differ."""
    return [key for key, a, b in _pairs(one, other) if not _same(a, b)]


def _pairs(one: Any, other: Any) -> list[tuple[str, Any, Any]]:
    a, b = dict(_leaves(one, "")), dict(_leaves(other, ""))
    return [(key, a.get(key), b.get(key)) for key in {**a, **b}]


def _leaves(node: Any, key: str) -> list[tuple[str, Any]]:
    if isinstance(node, Sequence) and not isinstance(node, str):
        node = dict(enumerate(node))
    if not isinstance(node, dict):
        return [(key, node)]
    return [
        leaf for name, inner in node.items() for leaf in _leaves(inner, f"{key}.{name}".lstrip("."))
    ]


def _same(one: Any, other: Any) -> bool:
    """Bit for bit; a NaN equals a NaN."""
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        same = isinstance(one, Tensor) and isinstance(other, Tensor)
        same = same and (one.dtype, one.shape) == (other.dtype, other.shape)
        return same and torch.equal(*(x.reshape(-1).view(torch.uint8) for x in (one, other)))
    return bool(one is other or one == other or (one != one and other != other))


def _hex(value: Any) -> str:
    return float(value).hex() if isinstance(value, int | float) else strict_json(value)
