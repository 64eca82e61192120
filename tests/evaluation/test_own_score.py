"""What a run says of itself at its end is what `harness.evaluate` says of it, to the last bit."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from harness.training.moving_average import MovingAverage
from tests.conftest import Ended
from tests.evaluation.test_evaluate_and_sample import evaluated
from tests.small_runs import TEXT, cut_off, rows, summary, train

SCORE = ("nats_per_token", "bits_per_byte", "perplexity", "tokens", "bytes", "stride", "unknown")
HF = ("model=hf", "model.config.model_type=bert", "model.config.hidden_size=16")
HF += ("model.config.num_hidden_layers=1",)
HF += ("+model.config.num_attention_heads=2", "+model.config.intermediate_size=16")
NORM = ("model.norm=batch_norm", "train.batch_norm_samples=64")
MLP = ("model=mlp", "model.n_hidden=16", "model.context=4", "model.n_embd=4")
WAVENET = ("model=wavenet", "model.dilations=[1,2]", "model.kernel_sizes=[2,2]", "model.n_embd=8")
WAVENET += tuple(f"model.channels_{name}=8" for name in ("residual", "gate", "skip"))
CHOICES: dict[str, dict[str, tuple[str, ...]]] = {
    "model": {
        "gru": ("model=gru", "model.n_layer=1", "model.n_embd=8", "model.n_hidden=8"),
        "gpt": ("model=gpt", "model.n_layer=1", "model.n_head=2", "model.n_embd=8"),
        "mlp": (*MLP, *NORM, "model.bias=false"),
        "wavenet": (*WAVENET, *NORM),
        "bert": HF,
    },
    "tokenizer": {
        "bytes": ("tokenizer=bytes",),
        "bpe": ("tokenizer=bpe", "tokenizer.vocab_size=280"),
        "lossy": ("tokenizer=bert",),
    },
    "average": {"none": (), "ema": ("train.ema=0.9",)},
    "norm": {
        name: (f"train.batch_norm={name}",) for name in ("moving", "precise", "frozen", "batch")
    },
    "precision": {name: (f"precision={name}",) for name in ("fp32", "bf16")},
    "stride": {"half": (), "three": ("eval.stride=3",)},
    "windows": {"many": (), "five": ("eval.batch_size=5",)},
    "ended": {
        "whole": (),
        "resumed": (),
        "early": ("train.patience=1", "optimizer.lr=30", "schedule=constant"),
    },
}
NORMED = ("mlp", "wavenet")
CASES = [
    "bert bytes ema moving fp32 half many whole",
    "bert bpe none moving fp32 half many whole",
    "bert bytes ema moving bf16 half five early",
    "bert lossy none moving fp32 three many resumed",
    "gru bpe none moving bf16 three many early",
    "gru bytes none moving bf16 three many whole",
    "gru lossy ema moving fp32 half five resumed",
    "gpt bpe none moving bf16 three many resumed",
    "gpt bytes ema moving fp32 half five early",
    "gpt lossy ema moving fp32 half many whole",
    "mlp bpe ema frozen bf16 half five resumed",
    "mlp bpe none batch bf16 half five early",
    "mlp bpe none moving fp32 three five whole",
    "mlp bytes ema precise fp32 half five resumed",
    "mlp bytes none frozen fp32 three many early",
    "mlp lossy none batch bf16 three five whole",
    "wavenet bpe ema precise bf16 half many whole",
    "wavenet bytes ema batch fp32 half many resumed",
    "wavenet lossy ema frozen fp32 three many whole",
    "wavenet lossy none moving fp32 three five early",
    "wavenet lossy none precise fp32 three five early",
]  # fmt: skip


def pairs(case: tuple[str, ...]) -> set[tuple[tuple[str, str], ...]]:
    return set(itertools.combinations(zip(CHOICES, case, strict=True), 2))


def possible() -> Iterator[tuple[str, ...]]:
    for case in itertools.product(*CHOICES.values()):
        if case[0] in NORMED or case[3] == "moving":
            yield case


def test_every_pair_of_choices_is_in_some_case() -> None:
    wanted = set().union(*map(pairs, possible()))
    assert wanted - set().union(*(pairs(tuple(case.split())) for case in CASES)) == set()


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=[pytest.mark.long] if n % 4 else []) for n, c in enumerate(CASES)],
)
def test_a_runs_own_score_is_that_of_evaluate(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    command: Callable[..., Ended],
    case: str,
) -> None:
    words = case.split()
    if "lossy" in words:
        request.getfixturevalue("assets")
    (tmp_path / "corpus.txt").write_text(TEXT[:6000])
    chosen = [f"eval.every={1 if 'early' in words else 2}", "checkpoint.every=2"]
    for group, word in zip(CHOICES.values(), words, strict=True):
        chosen += group[word]
    if "resumed" in words:
        cut_off(tmp_path / "a", 5, monkeypatch, *chosen)
        chosen.append("resume=true")
    assert train(tmp_path / "a", *chosen) == 0
    own, last, run = summary(tmp_path / "a"), rows(tmp_path / "a")[-1], tmp_path / "a/run"
    assert (own["train"]["steps"] < 8) == ("early" in words)
    for split in ("val", "test"):
        found = evaluated(command, run, "--split", split, "--device", "cpu")
        assert {name: found[name] for name in SCORE} == own[split]
    latest = evaluated(command, run, "--split", "val", "--device", "cpu", "--checkpoint", "latest")
    assert latest["step"] == last["step"]
    assert {name: latest[name] for name in SCORE[:3]} == {k: last[f"val/{k}"] for k in SCORE[:3]}


def test_the_average_of_weights_and_float_buffers_is_the_recurrence_and_the_rest_is_copied() -> (
    None
):
    model = nn.Module()
    model.weight = nn.Parameter(torch.zeros(3))
    model.register_buffer("mean", torch.zeros(3, dtype=torch.float64))
    model.register_buffer("ids", torch.arange(200))
    model.register_buffer("unsaved", torch.arange(5), persistent=False)
    model.register_buffer("count", torch.tensor(0))
    model.register_buffer("flag", torch.tensor(True))
    model.register_buffer("mask", torch.full((3, 3), -torch.inf).triu(1))
    average, expected = MovingAverage(model, 0.9), None
    for step in range(1, 8):
        with torch.no_grad():
            model.weight.copy_(torch.randn(3, generator=torch.Generator().manual_seed(step)))
            model.mean += step
            model.count += 1
            model.flag.logical_not_()
        average.update_parameters(model)
        now = {name: value.double() for name, value in model.state_dict().items()}
        expected = expected or now
        for name in ("weight", "mean"):
            expected[name] = 0.9 * expected[name] + 0.1 * now[name]
            found = average.module.state_dict()[name]
            torch.testing.assert_close(found, expected[name].to(found.dtype))
        for name in ("ids", "unsaved", "count", "flag", "mask"):
            assert torch.equal(average.module.get_buffer(name), model.get_buffer(name)), name
