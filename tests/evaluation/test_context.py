"""A window other than the trained one: how far a model's positions can be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.config.saved import load_settings
from harness.evaluation.score import score_split
from harness.runs.load import load_run
from tests.conftest import Ended
from tests.small_runs import GPT_SMALL, train

Command = Callable[..., Ended]


def test_a_longer_window_than_was_trained(
    tmp_path: Path, finished_run: Path, command: Command
) -> None:
    assert train(tmp_path / "a", *GPT_SMALL, "model.positions=alibi", "train.steps=2") == 0
    run = tmp_path / "a/run"
    assert load_settings(run / "config.yaml").model["block_size"] == 16

    def scored(*options: object) -> dict[str, object]:
        ended = command("evaluate", run, "--split", "val", "--json", *options)
        assert ended.code == 0, ended.err
        found: dict[str, object] = json.loads(ended.out)
        return found

    own, longer = scored(), scored("--context", 40)
    assert scored("--context", 16)["nats_per_token"] == own["nats_per_token"]
    assert (longer["stride"], longer["context"], longer["tokens"]) == (20, 40, own["tokens"])
    loaded = load_run(run, "best", "cpu", [], context=40)
    assert loaded.model.block_size == 40
    val = loaded.dataset().val
    assert val is not None
    found = score_split(loaded.model, val, loaded.tokenizer, loaded.compute, 20)
    assert longer["nats_per_token"] == pytest.approx(found.nats_per_token, rel=1e-9)
    # Learned ones end where the training did.
    ended = command("evaluate", finished_run, "--split", "val", "--context", 40)
    assert ended.code == 2
    assert "has weights for a block_size of 16 alone, as learned positions are" in ended.err


def test_a_model_without_a_window(finished_bigram: Path, command: Command) -> None:
    ended = command("evaluate", finished_bigram, "--split", "val", "--context", 40)
    assert (ended.code, "bigram has no block_size to change" in ended.err) == (2, True)
