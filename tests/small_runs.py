"""Small real trainings, in this process, and what they leave behind."""

from __future__ import annotations

import functools
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from harness.cli.hydra_app import compose
from harness.config.settings import Settings, read_settings
from harness.training import loop
from harness.training.run import run

TEXT = "".join(
    f"{number} green bottles, hanging on the wall; and if {number % 7} should fall… \n"
    for number in range(400)
)
TRAIN_SHARE = 0.94
SMALL = (
    "data=text",
    # Most of a small training's time would go into its scores.
    f"data.split=[{TRAIN_SHARE},0.03,0.03]",
    "device=cpu",
    "precision=fp32",
    "train.steps=8",
    "train.batch_size=2",
    "train.seq_len=16",
    "eval.every=4",
    "eval.sample_tokens=5",
    "checkpoint.every=3",
)
GPT_SMALL = ("model=gpt", "model.n_layer=2", "model.n_head=2", "model.n_embd=16")

FILES: dict[tuple[str, ...], DictConfig] = {}  # what all compositions of this process share
# What `settings` replaces by the test's own paths.
CORPUS, CACHE, RUN = "the-corpus", "the-cache", "the-run"


def settings(folder: Path, *overrides: str) -> Settings:
    """Of a training of a second or two, whose corpus, cache and run lie in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    corpus = folder.parent / "corpus.txt"
    if not corpus.exists():
        corpus.write_text(TEXT)
    chosen = _composed(tuple(each for each in overrides if each != "resume=true"))
    changes: dict[str, Any] = {"resume": True} if "resume=true" in overrides else {}
    if chosen.data.get("path") == CORPUS:
        changes["data"] = chosen.data | {"path": str(corpus)}
    if chosen.cache == CACHE:
        changes["cache"] = str(folder.parent / "cache")
    if chosen.run_dir == RUN:
        changes["run_dir"] = str(folder / "run")
    return chosen.replace(**changes)


@functools.cache
def _composed(overrides: tuple[str, ...]) -> Settings:
    """Hydra takes as long as the training itself, so equal overrides are composed once; where they
    name no folder of their own, a word stands for the test's."""
    own = (f"data.path={CORPUS}", f"cache={CACHE}", f"run_dir={RUN}")
    return read_settings(compose([*SMALL, *own, *overrides], known=FILES))


def train(folder: Path, *overrides: str) -> int:
    """Train; returns the exit code. The run's folder is `folder`/run."""
    return run(settings(folder, *overrides))


def rows(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def trace(folder: Path) -> list[dict[str, Any]]:
    """Every row but for its seconds; equal traces are equal bit for bit."""
    return [
        {name: value for name, value in row.items() if name != "seconds"} for row in rows(folder)
    ]


def losses(folder: Path) -> list[tuple[float, float, float]]:
    """Of each optimizer step: loss, learning rate, gradient norm."""
    return [(row["train/loss"], row["lr"], row["grad_norm"]) for row in rows(folder) if "lr" in row]


def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run" / "summary.json").read_text())


def cut_off(folder: Path, step: int, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> int:
    """Train, with a SIGTERM to this very process while the batch of `step` is drawn."""
    draw = loop.draw_batch

    def drawing(ids, seed, now, *rest):  # noqa: ANN001, ANN002, ANN202
        if now == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return draw(ids, seed, now, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "draw_batch", drawing)
        return train(folder, *overrides)
