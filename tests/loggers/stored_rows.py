"""What W&B, TensorBoard and trackio have stored of a run, read from their own files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BIGRAM = ("model=bigram", "train.steps=12", "checkpoint.every=4")
KEY = "0123456789abcdef0123456789abcdef01234567"


def wandb_reads(session: Path, *options: str) -> str:
    """What W&B's own reader makes of an offline run."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", *options, str(session)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def wandb_sessions(run: Path) -> list[list[dict[str, Any]]]:
    """The records of each session of the run, in order."""
    sessions = sorted((run / "wandb").glob("offline-run-*"))
    return [[json.loads(line) for line in wandb_reads(path).splitlines()] for path in sessions]


def of_type(records: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [record[kind] for record in records if record["type"] == kind]


def wandb_rows(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A session's history, without what W&B adds, dots between the levels of its names."""
    items = [item["item"] for item in of_type(records, "history")]
    added = ("_", "samples.", "report.")
    kept = [{k: v for k, v in item.items() if not k.startswith(added)} for item in items]
    assert [row["step"] for row in kept] == [item["_step"] for item in items]
    return kept


def as_wandb(row: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            found |= {f"{name}._type": "histogram", f"{name}.bins": value["edges"]}
            found |= {f"{name}.values": value["counts"]}
        else:
            found[name] = value
    return found


def tensorboard_rows(run: Path) -> list[dict[str, Any]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"), {"scalars": 0, "histograms": 0}).Reload()
    found: dict[int, dict[str, Any]] = {}
    for name in events.Tags()["scalars"]:
        if not name.startswith(("test/", "best/")):
            for event in events.Scalars(name):
                assert name not in found.setdefault(event.step, {})
                found[event.step][name] = event.value
    for name in events.Tags()["histograms"]:
        for event in events.Histograms(name):
            value = event.histogram_value
            moments = value.min, value.max, value.num, value.sum, value.sum_squares
            found[event.step][name] = (*moments, value.bucket_limit, value.bucket)
    return [found[step] for step in sorted(found)]


def as_tensorboard(row: dict[str, Any]) -> dict[str, Any]:
    """Numbers in single precision, of a histogram the sum of what lies at its buckets' middles; a
    bucket is named by where it ends, and the first, empty one ends where the values begin."""
    import numpy as np

    found: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            counts, edges = np.array(value["counts"]), np.array(value["edges"])
            middles = (edges[1:] + edges[:-1]) / 2
            sums = (counts * middles).sum(), (counts * middles**2).sum()
            found[name] = (
                edges[0], edges[-1], counts.sum(), *(pytest.approx(each) for each in sums),
                value["edges"], [0, *value["counts"]],
            )  # fmt: skip
        else:
            found[name] = float(np.float32(value))
    return found


def trackio_rows() -> list[dict[str, Any]]:
    """The rows that a user of trackio sees, all of them of one run."""
    found = json.loads(trackio("SELECT run_name, step, metrics FROM metrics ORDER BY step"))["rows"]
    assert len({row["run_name"] for row in found}) == 1
    both = [{"step": row["step"], **json.loads(row["metrics"])} for row in found]
    return [row for row in both if "tokens" in row]


def trackio(query: str) -> str:
    """What trackio's own command answers."""
    command = [sys.executable, "-m", "trackio.cli", "query", "project", "--json"]
    command += ["--project", "language-model-zoo", "--sql", query]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def as_trackio(row: dict[str, Any]) -> dict[str, Any]:
    def media(value: dict[str, Any]) -> dict[str, Any]:
        return {"_type": "trackio.histogram", "bins": value["edges"], "values": value["counts"]}

    return {name: media(value) if isinstance(value, dict) else value for name, value in row.items()}


def defined(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Loggers leave out what has no value."""
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


def warnings(run: Path) -> list[str]:
    lines = (run / "train.log").read_text().splitlines()
    return [line for line in lines if " WARNING " in line]
