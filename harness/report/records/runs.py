"""Run folders on disk: finding them and reading each into a record.

Reading never fails because of what a run left behind: a run that was killed or damaged becomes a
record that says so, because a comparison that hides its losses is not one.
"""

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.common.errors import UsageError
from harness.runs import blocks, samples
from harness.runs.blocks import Blocks
from harness.runs.files import (
    DamageError,
    Metrics,
    last_sample,
    number_at,
    read_blocks,
    read_config,
    read_metrics,
    read_summary,
    section,
    texts,
)

DAMAGED = "damaged"
UNKNOWN = "?"


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

    `status` is one of run_files.STATUSES or DAMAGED; `error` is the run's own error, or what is
    damaged. `corpus` is the SHA-256 of the text. `config` is flat (dotted keys, values as text).
    `blocks` are what the test score is made of; None for older runs and lossy tokenizers.
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
    metrics: Metrics = field(default_factory=Metrics)
    blocks: Blocks | None = None
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
        found = list(run_folders(path))
        if not found:
            raise UsageError(
                f"{path}: no run here (no summary.json at any depth); "
                "give a run's folder or one that holds runs"
            )
        for folder in found:
            folders.setdefault(folder.resolve(), folder)
    return [read_run(folders[resolved]) for resolved in sorted(folders)]


def run_folders(path: Path) -> Iterable[Path]:
    """The folders at any depth below `path`, itself included, that hold a run."""
    for folder, subfolders, files in os.walk(path):
        # A run that lost its summary still left metrics: it must be listed, not overlooked.
        if "summary.json" in files or "metrics.jsonl" in files:
            yield Path(folder)
            subfolders.clear()


def read_run(folder: Path, *, with_metrics: bool = True) -> RunRecord:
    """Reads one run folder; whatever is wrong with its content ends up in `status` and `error`.

    with_metrics: also metrics.jsonl, which may be large.
    """
    summary: dict[str, Any] = {}
    damage: list[str] = []

    def attempt(read: Callable[[], Any], otherwise: Any) -> Any:
        try:
            return read()
        except FileNotFoundError as error:
            damage.append(f"{Path(error.filename).name} is missing")
        except (DamageError, OSError) as error:
            damage.append(str(error))
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            damage.append(f"what no run writes ({type(error).__name__}: {error})")
        return otherwise

    summary = attempt(lambda: read_summary(folder / "summary.json"), {})
    status = summary.get("status", DAMAGED)
    config_path, metrics_path = folder / "config.yaml", folder / "metrics.jsonl"
    # A run that did not finish may have been killed before it wrote these.
    finished = status == "finished"
    config = attempt(lambda: read_config(config_path), {}) if _due(config_path, finished) else {}
    nothing = Metrics()
    metrics = nothing
    if with_metrics and _due(metrics_path, finished):
        metrics = attempt(lambda: read_metrics(metrics_path), nothing)
    sample_step, sample = last_sample(folder / samples.FILE)
    known = attempt(lambda: _known_fields(summary), {})
    own_blocks = attempt(lambda: _blocks(folder / blocks.FILE, known.get("test")), None)
    return RunRecord(
        folder=folder,
        status=DAMAGED if damage else status,
        error="; ".join(damage) or summary.get("error"),
        config=config,
        metrics=metrics,
        blocks=own_blocks,
        sample=sample,
        sample_step=sample_step,
        **known,
    )


def _due(path: Path, finished: bool) -> bool:
    return finished or path.exists()


def _known_fields(summary: dict[str, Any]) -> dict[str, Any]:
    lossless = summary.get("lossless")
    train = section(summary, "train")
    names = ("model", "tokenizer", "data")
    if not all(isinstance(summary.get(name), str | None) for name in names):
        raise DamageError("summary.json: model, tokenizer or data is not a name")
    return {
        **{name: summary.get(name) or UNKNOWN for name in names},
        "seed": number_at(summary, "seed"),
        "corpus": texts(summary, "corpus").get("sha256", UNKNOWN),
        "lossless": lossless is not False,
        "lost": _lost(section(summary, "lost")),
        "leaks": summary.get("leaks") is True,
        "causal": summary.get("causal") is not False,
        "parameters": number_at(section(summary, "parameters"), "total"),
        "flops_per_token": number_at(summary, "flops_per_token"),
        "train": Cost(**{name: number_at(train, name) for name in Cost.__dataclass_fields__}),
        "val": _score(summary, "val"),
        "test": _score(summary, "test"),
        "versions": texts(summary, "versions"),
        "git": texts(summary, "git"),
        "machine": texts(summary, "machine"),
    }


def _score(summary: dict[str, Any], split: str) -> Score | None:
    if summary.get(split) is None:
        return None
    score = section(summary, split)
    return Score(**{name: number_at(score, name) for name in Score.__dataclass_fields__})


def _lost(lost: dict[str, Any]) -> dict[str, Any]:
    """What a lossy tokenizer loses, as `harness.encoded.Lost` has it."""
    counts = [number_at(lost, name) for name in ("characters", "changed")]
    examples = lost.get("examples", [])
    pairs = isinstance(examples, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)
        for pair in examples
    )
    if not pairs or (None in counts and lost):
        raise DamageError("summary.json: lost does not say what is lost")
    return lost


def _blocks(path: Path, test: Score | None) -> Blocks | None:
    found = read_blocks(path)
    if found is None or test is None or test.bits_per_byte is None or not test.bytes:
        return None  # an unfinished run may have those of an earlier test
    bits_per_byte = math.fsum(found.nats) / math.log(2) / test.bytes
    if not math.isclose(bits_per_byte, test.bits_per_byte, rel_tol=1e-5):
        raise DamageError(f"{path.name} does not add up to the test score of summary.json")
    return found
