"""A training and its tokenizer: every architecture with every kind of tokenizer."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest

from harness.common.errors import UsageError
from harness.runs.load import load_run
from tests.small_runs import train
from tests.zoo_tokenizers.building import fitted
from zoo_tokenizers.characters import Characters


def test_a_run_is_refused_another_tokenizer(finished_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    assert load_run(run, "best", "cpu", []).tokenizer.vocab_size > 0
    fitted(Characters(), "another alphabet").save(run / "tokenizer")
    with pytest.raises(UsageError, match="is not the one the checkpoint was trained with"):
        load_run(run, "best", "cpu", [])
    (run / "tokenizer/characters.txt").write_text("abc")
    with pytest.raises(UsageError, match="was changed"):
        load_run(run, "best", "cpu", [])


SMALL = {
    "bigram": [],
    "mlp": ["model.n_hidden=16", "model.n_embd=8"],
    "wavenet": [
        *("model.n_stack=1", "model.n_embd=8", "model.channels_residual=8"),
        *("model.channels_gate=8", "model.channels_skip=8"),
    ],
    "gpt": ["model.n_layer=1", "model.n_head=2", "model.n_embd=8"],
    "megabyte": ["model.n_layer_global=1", "model.n_layer_local=1", "model.n_embd_global=32"],
}


TOKENIZERS = ("char", "bytes", "sentencepiece", "p50k", "bert")
# Each model with one tokenizer and each tokenizer with one model; the rest are long tests.
PAIRS = [
    pytest.param(model, each, marks=[] if number == other else pytest.mark.long)
    for number, model in enumerate(SMALL)
    for other, each in enumerate(TOKENIZERS)
]


@pytest.mark.parametrize(("model", "tokenizer"), PAIRS)
def test_every_architecture_trains_with_every_tokenizer(
    model: str, tokenizer: str, assets: Path, tmp_path: Path, no_network: None
) -> None:
    chosen = [f"model={model}", *SMALL[model], f"tokenizer={tokenizer}", f"assets=[{assets}]"]
    if model == "bigram" and tokenizer in ("p50k", "bert"):
        chosen.append("model.n_embd=8")  # the table of all pairs would take 10 or 4 GB, trained 40
    assert train(tmp_path / "job", *chosen, "train.steps=2", "eval.every=2", "eval.prompt=a") == 0
    summary = json.loads((tmp_path / "job/run/summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["lossless"] == (tokenizer != "bert")
    assert (summary["test"]["bits_per_byte"] is None) == (tokenizer == "bert")
    assert summary["leaks"] is False
    assert (summary["lost"] is None) == (tokenizer != "bert")
    # Untrained, a model is about as good as a uniform one: the number is in the right currency.
    assert summary["test"]["nats_per_token"] == pytest.approx(
        math.log(summary["vocab_size"]), rel=0.2
    )
