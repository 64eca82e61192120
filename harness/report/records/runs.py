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
from harness.runs.damage import DamageError
from harness.runs.files import Metrics, as_text, last_sample, read_blocks, read_config, read_metrics
from harness.runs.summary import LostText, Scored, Summary, TrainCost, read_summary

DAMAGED = "damaged"
UNKNOWN = "?"


@dataclass(frozen=True)
class RunRecord:
    """One run folder as read. Unknown numbers are None, unknown names UNKNOWN.

    `status` is that of the summary, or DAMAGED; `error` is the run's own error, or what is damaged.
    `corpus` is the SHA-256 of the text. `config` is flat (dotted keys, values as text).
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
    lost: LostText | None = None
    leaks: bool = False
    causal: bool = True
    parameters: float | None = None
    flops_per_token: float | None = None
    train: TrainCost = field(default_factory=TrainCost)
    val: Scored | None = None
    test: Scored | None = None
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

    summary = attempt(lambda: read_summary(folder), None)
    status = summary.status if summary else DAMAGED
    config_path, metrics_path = folder / "config.yaml", folder / "metrics.jsonl"
    # A run that did not finish may have been killed before it wrote these.
    finished = status == "finished"
    config = attempt(lambda: read_config(config_path), {}) if _due(config_path, finished) else {}
    nothing = Metrics()
    metrics = nothing
    if with_metrics and _due(metrics_path, finished):
        metrics = attempt(lambda: read_metrics(metrics_path), nothing)
    sample_step, sample = last_sample(folder / samples.FILE)
    known = _known_fields(summary) if summary else {}
    own_blocks = attempt(lambda: _blocks(folder / blocks.FILE, known.get("test")), None)
    return RunRecord(
        folder=folder,
        status=DAMAGED if damage else status,
        error="; ".join(damage) or (summary and summary.error),
        config=config,
        metrics=metrics,
        blocks=own_blocks,
        sample=sample,
        sample_step=sample_step,
        **known,
    )


def _due(path: Path, finished: bool) -> bool:
    return finished or path.exists()


def _known_fields(summary: Summary) -> dict[str, Any]:
    corpus = summary.corpus.sha256 if summary.corpus else None
    parameters = summary.parameters
    return {
        "model": summary.model or UNKNOWN,
        "tokenizer": summary.tokenizer or UNKNOWN,
        "data": summary.data or UNKNOWN,
        "seed": summary.seed,
        "corpus": corpus or UNKNOWN,
        "lossless": summary.lossless is not False,
        "lost": summary.lost,
        "leaks": summary.leaks is True,
        "causal": summary.causal is not False,
        "parameters": parameters.total if parameters else None,
        "flops_per_token": summary.flops_per_token,
        "train": summary.train or TrainCost(),
        "val": summary.val,
        "test": summary.test,
        "versions": _texts(summary.versions),
        "git": _texts(summary.git),
        "machine": _texts(summary.machine),
    }


def _texts(values: Mapping[str, Any] | None) -> dict[str, str]:
    return {key: as_text(value) for key, value in (values or {}).items()}


def _blocks(path: Path, test: Scored | None) -> Blocks | None:
    found = read_blocks(path)
    if found is None or test is None or test.bits_per_byte is None or not test.bytes:
        return None  # an unfinished run may have those of an earlier test
    bits_per_byte = math.fsum(found.nats) / math.log(2) / test.bytes
    if not math.isclose(bits_per_byte, test.bits_per_byte, rel_tol=1e-5):
        raise DamageError(f"{path.name} does not add up to the test score of summary.json")
    return found
