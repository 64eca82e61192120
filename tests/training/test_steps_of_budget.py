"""What a budget is planned to take is what a training of it takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from harness.cli.hydra_app import compose
from harness.common.errors import UsageError
from harness.compute.meta import meta_model
from harness.config.settings import Settings, read_settings
from harness.data.dataset import Dataset
from harness.data.encoded import Documents
from harness.runs.summary import read_summary
from harness.training.flops import flops_per_step, steps_of_budget
from harness.training.run import load_dataset
from tests.conftest import Ended
from tests.small_runs import SMALL


@pytest.mark.parametrize(
    "budget", ["steps=3", "tokens=1000", "bytes=1000", "flops=2e6", "tokens=512", "flops=1"]
)
def test_a_training_takes_the_planned_steps(
    command: Callable[..., Ended], small_text: Path, tmp_path: Path, budget: str
) -> None:
    words = [
        *(word for word in SMALL if "train.steps" not in word), f"train.{budget}",
        "model=mlp", f"data.path={small_text}", f"cache={tmp_path / 'cache'}",
    ]  # fmt: skip
    folder = tmp_path / "run"
    assert command("train", *words, f"run_dir={folder}").code == 0
    settings = read_settings(compose(words))
    dataset = load_dataset(settings)
    model = meta_model(settings, dataset.tokenizer.vocab_size)
    trained = read_summary(folder).train
    assert steps_of_budget(settings, dataset, model, 1.0) == trained.steps
    each = flops_per_step(settings, dataset, model)
    assert trained.steps * each == trained.flops


def _bigram(*words: str) -> tuple[Settings, Dataset]:
    settings = read_settings(compose(["model=bigram", "model.n_embd=4", *words]))
    made = SimpleNamespace(row_documents=None, tokenizer=SimpleNamespace(vocab_size=10))
    return settings, cast(Dataset, made)


def test_flops_of_a_step_are_the_closed_form() -> None:
    """A factored bigram: one product with (n, V) a token, and two more in the backward pass."""
    n, vocabulary, rows, time = 4, 10, 6, 16
    settings, dataset = _bigram("train.batch_size=3", "train.accumulate=2", "train.seq_len=16")
    model = meta_model(settings, vocabulary)
    flops = 6 * n * vocabulary * rows * time
    assert flops_per_step(settings, dataset, model) == flops
    # Of documents 5 tokens long, 2 on average: rows have 5 positions.
    cast(Any, dataset).row_documents = Documents(np.array([0, 1, 2, 3, 8]))
    assert flops_per_step(settings, dataset, model) == flops * 5 / time
    tokens = settings.train.replace(steps=None, tokens=7 * rows * 2)
    assert steps_of_budget(settings.replace(train=tokens), dataset, model, 1.0) == 7


def test_seconds_are_planned_by_those_of_a_step() -> None:
    settings, dataset = _bigram("train.seconds=9")
    assert steps_of_budget(settings, dataset, meta_model(settings, 10), 2.0) == 5


def test_flops_of_a_model_without_any_are_refused() -> None:
    settings = read_settings(compose(["model=bigram", "train.flops=9"]))
    _, dataset = _bigram()
    with pytest.raises(UsageError, match="bigram costs no FLOPs"):
        steps_of_budget(settings, dataset, meta_model(settings, 10), 1.0)
