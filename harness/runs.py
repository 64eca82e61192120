"""Run folders on disk: finding them and reading each into a record.

Reading never fails because of what a run left behind: a run that was killed or damaged becomes a
record that says so, because a comparison that hides its losses is not one.
"""

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import UsageError

STATUSES = ("running", "finished", "stopped", "failed", "non_finite")
DAMAGED = "damaged"
UNKNOWN = "?"
# What may differ between two runs of one configuration: the seed, where files lie, and what is
# watched or kept. A corpus is told by its digest, not by its path.
NOT_CONFIGURATION = (
    "seed", "run_dir", "resume", "hydra", "assets", "cache", "trust", "logger", "checkpoint",
    "device", "data.path", "eval.batch_size", "eval.sample_tokens", "eval.prompt",
)  # fmt: skip
SAMPLE_HEADING = re.compile(r"^=== step (\d+) ===$", re.MULTILINE)


class _DamageError(Exception):
    """A run's file holds what no run writes."""


@dataclass(frozen=True)
class Score:
    """Loss over a whole split, measured with the best checkpoint's weights.

    `bytes` are the bytes of text that were scored, `stride` the evaluation stride in tokens (None:
    one streaming pass). `bits_per_byte` is None where the tokenizer is lossy.
    """

    nats_per_token: float | None
    bits_per_byte: float | None
    bytes: float | None
    stride: float | None


@dataclass(frozen=True)
class Cost:
    """What training took: totals over the run, `tokens_per_second` and `peak_memory_bytes`."""

    steps: float | None = None
    tokens: float | None = None
    bytes: float | None = None
    flops: float | None = None
    seconds: float | None = None
    tokens_per_second: float | None = None
    peak_memory_bytes: float | None = None


@dataclass(frozen=True)
class RunRecord:
    """One run folder as read. Unknown numbers are None, unknown names UNKNOWN.

    `status` is one of STATUSES or DAMAGED; `error` is the run's own error, or what is damaged.
    `corpus` is the SHA-256 of the text. `config` is flat (dotted keys, values as text); `rows` are
    the lines of metrics.jsonl.
    """

    folder: Path
    status: str
    error: str | None = None
    model: str = UNKNOWN
    tokenizer: str = UNKNOWN
    data: str = UNKNOWN
    seed: float | None = None
    corpus: str = UNKNOWN
    lossless: bool = True
    lost: Mapping[str, Any] = field(default_factory=dict)
    leaks: bool = False
    causal: bool = True
    parameters: float | None = None
    flops_per_token: float | None = None
    train: Cost = Cost()
    val: Score | None = None
    test: Score | None = None
    config: Mapping[str, str] = field(default_factory=dict)
    rows: Sequence[Mapping[str, Any]] = ()
    sample: str | None = None
    sample_step: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    git: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, str] = field(default_factory=dict)


def find_runs(paths: Iterable[Path]) -> list[RunRecord]:
    """Every run in the given folders, searched recursively, each once, ordered by folder.

    Raises UsageError for a path that does not exist or holds no run.
    """
    folders: dict[Path, Path] = {}
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path}: no such folder; give a run's folder or one that holds runs")
        found = list(_run_folders(path))
        if not found:
            raise UsageError(
                f"{path}: no run here (no summary.json at any depth); "
                "give a run's folder or one that holds runs"
            )
        for folder in found:
            folders.setdefault(folder.resolve(), folder)
    return [read_run(folders[resolved]) for resolved in sorted(folders)]


def _run_folders(path: Path) -> Iterable[Path]:
    for folder, subfolders, files in os.walk(path):
        # A run that lost its summary still left metrics: it must be listed, not overlooked.
        if "summary.json" in files or "metrics.jsonl" in files:
            yield Path(folder)
            subfolders.clear()


def read_run(folder: Path) -> RunRecord:
    """Reads one run folder; whatever is wrong with its content ends up in `status` and `error`."""
    summary: dict[str, Any] = {}
    damage: list[str] = []

    def attempt(read: Callable[[], Any], otherwise: Any) -> Any:
        try:
            return read()
        except FileNotFoundError as error:
            damage.append(f"{Path(error.filename).name} is missing")
        except (_DamageError, OSError) as error:
            damage.append(str(error))
        return otherwise

    summary = attempt(lambda: _read_summary(folder / "summary.json"), {})
    status = summary.get("status", DAMAGED)
    config_path, metrics_path = folder / "config.yaml", folder / "metrics.jsonl"
    # A run that did not finish may have been killed before it wrote these.
    finished = status == "finished"
    config = attempt(lambda: _read_config(config_path), {}) if _due(config_path, finished) else {}
    rows = attempt(lambda: _read_rows(metrics_path), []) if _due(metrics_path, finished) else []
    sample_step, sample = _last_sample(folder / "samples.txt")
    known = attempt(lambda: _known_fields(summary), {})
    return RunRecord(
        folder=folder,
        status=DAMAGED if damage else status,
        error="; ".join(damage) or summary.get("error"),
        config=config,
        rows=rows,
        sample=sample,
        sample_step=sample_step,
        **known,
    )


def _due(path: Path, finished: bool) -> bool:
    return finished or path.exists()


def _read_summary(path: Path) -> dict[str, Any]:
    summary = _parse_json(path.read_text(encoding="utf-8", errors="replace"), path.name)
    if summary.get("status") not in STATUSES:
        raise _DamageError(f"{path.name} has no known status ({summary.get('status')!r})")
    if not isinstance(summary.get("error"), str | None):
        raise _DamageError(f"{path.name}: error is not text")
    return summary


def _parse_json(text: str, where: str) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        value = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        raise _DamageError(f"{where} is not strict JSON") from None
    if not isinstance(value, dict):
        raise _DamageError(f"{where} is not a JSON object")
    return value


def _known_fields(summary: dict[str, Any]) -> dict[str, Any]:
    lossless = summary.get("lossless")
    train = _section(summary, "train")
    names = ("model", "tokenizer", "data")
    if not all(isinstance(summary.get(name), str | None) for name in names):
        raise _DamageError("summary.json: model, tokenizer or data is not a name")
    return {
        **{name: summary.get(name) or UNKNOWN for name in names},
        "seed": _number(summary, "seed"),
        "corpus": _texts(summary, "corpus").get("sha256", UNKNOWN),
        "lossless": lossless is not False,
        "lost": _section(summary, "lost"),
        "leaks": summary.get("leaks") is True,
        "causal": summary.get("causal") is not False,
        "parameters": _number(_section(summary, "parameters"), "total"),
        "flops_per_token": _number(summary, "flops_per_token"),
        "train": Cost(**{name: _number(train, name) for name in Cost.__dataclass_fields__}),
        "val": _score(summary, "val"),
        "test": _score(summary, "test"),
        "versions": _texts(summary, "versions"),
        "git": _texts(summary, "git"),
        "machine": _texts(summary, "machine"),
    }


def _section(summary: dict[str, Any], name: str) -> dict[str, Any]:
    section = summary.get(name)
    if section is None:
        return {}
    if not isinstance(section, dict):
        raise _DamageError(f"summary.json: {name} is not an object")
    return section


def _texts(summary: dict[str, Any], name: str) -> dict[str, str]:
    return {key: _text(value) for key, value in _section(summary, name).items()}


def _score(summary: dict[str, Any], split: str) -> Score | None:
    if summary.get(split) is None:
        return None
    section = _section(summary, split)
    return Score(**{name: _number(section, name) for name in Score.__dataclass_fields__})


def _number(section: Mapping[str, Any], key: str) -> float | None:
    value = section.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _DamageError(f"{key} is not a finite number: {value!r:.40}")
    return value


def _read_rows(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    rows = []
    for index, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            row = _parse_json(line, f"{path.name} line {index + 1}")
        except _DamageError:
            # The writer ends each line with a line break, so what follows the last one is a line
            # that a kill tore. A bad line anywhere else is damage.
            if index == len(lines) - 1:
                break
            raise
        if _number(row, "step") is None:
            raise _DamageError(f"{path.name} line {index + 1} has no step")
        rows.append(row)
    return rows


def _read_config(path: Path) -> dict[str, str]:
    import yaml

    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8", errors="replace"))
    except (yaml.YAMLError, RecursionError):
        raise _DamageError(f"{path.name} is not plain YAML") from None
    if not isinstance(config, dict):
        raise _DamageError(f"{path.name} is not a mapping")
    return {
        key: text
        for key, text in _flatten(config)
        if not any(key == name or key.startswith(name + ".") for name in NOT_CONFIGURATION)
    }


def _flatten(config: Mapping[Any, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, sort_keys=True)


def _last_sample(path: Path) -> tuple[int | None, str | None]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None, None
    headings = list(SAMPLE_HEADING.finditer(text))
    if not headings:
        return None, None
    return int(headings[-1].group(1)), text[headings[-1].end() :].strip("\n")
