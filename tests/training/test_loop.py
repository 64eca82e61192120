"""The loop does what its configuration says."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from harness.common.errors import UsageError
from harness.data.batches import draw_batch
from harness.evaluation.nats import nats_N
from harness.runs import checkpoint
from harness.runs.checkpoint import StepCheckpoint
from harness.sampling.decode import SamplingParams, generate
from harness.training import loop, loss, recorder, trainer
from harness.training.parameter_groups import parameter_groups
from tests.small_runs import GPT_SMALL, losses, rows, settings, summary, trace, train
from zoo.gpt import GPT


def test_a_run_leaves_what_the_design_says(tmp_path: Path) -> None:
    assert train(tmp_path / "a", *GPT_SMALL) == 0
    run = tmp_path / "a" / "run"
    for name in ("config.yaml", "metrics.jsonl", "summary.json", "samples.txt", "train.log"):
        assert (run / name).stat().st_size > 0, name
    assert {path.name for path in (run / "checkpoints").glob("*.pt")} >= {"step-00000008.pt"}
    found = summary(tmp_path / "a")
    assert found["status"] == "finished"
    assert (found["model"], found["tokenizer"], found["data"]) == ("gpt", "char", "corpus")
    assert found["parameters"]["total"] == found["parameters"]["trainable"] > 0
    assert found["train"]["steps"] == 8
    assert found["train"]["tokens"] == 8 * 2 * 16
    assert found["train"]["flops"] == pytest.approx(found["flops_per_token"] * 8 * 2 * 16)
    assert found["receptive_field"] == 16
    assert found["best"]["bits_per_byte"] == found["val"]["bits_per_byte"]
    assert found["test"]["bits_per_byte"] > 0
    assert found["val"]["stride"] == 8
    assert (run / "samples.txt").read_text().count("=== step ") == 3
    assert [row["step"] for row in rows(tmp_path / "a")] == list(range(9))
    assert [row["step"] for row in rows(tmp_path / "a") if "val/bits_per_byte" in row] == [0, 4, 8]


def test_first_loss_is_the_logarithm_of_the_vocabulary(tmp_path: Path) -> None:
    train(tmp_path / "a", *GPT_SMALL, "train.steps=1", "schedule=constant")
    vocab_size = summary(tmp_path / "a")["vocab_size"]
    assert rows(tmp_path / "a")[0]["train/loss"] == pytest.approx(math.log(vocab_size), rel=0.02)


def test_every_row_describes_the_weights_it_names(tmp_path: Path) -> None:
    """The loss of row k is that of the model after k updates on batch k, found again by hand."""
    train(tmp_path / "a", *GPT_SMALL, "checkpoint.every=4")
    chosen = settings(tmp_path / "a", *GPT_SMALL, "resume=true")
    from harness.training.run import load_dataset

    dataset = load_dataset(chosen)
    saved = torch.load(tmp_path / "a/run/checkpoints/step-00000004.pt", weights_only=True)
    model = GPT(dataset.tokenizer.vocab_size, 16, 2, 2, 16)
    model.load_state_dict(saved["model"])
    inputs, targets = draw_batch(dataset.train.ids, chosen.seed, 4, 2, 16)
    logits = model(inputs).flatten(0, 1)
    loss = nn.functional.cross_entropy(logits, targets.flatten()).item()
    assert rows(tmp_path / "a")[4]["train/loss"] == pytest.approx(loss, rel=1e-6)


def test_the_same_command_gives_the_same_trace(tmp_path: Path) -> None:
    for name in ("a", "b"):
        train(tmp_path / name, *GPT_SMALL, "model.dropout=0.2")
    assert trace(tmp_path / "a") == trace(tmp_path / "b")
    train(tmp_path / "c", *GPT_SMALL, "model.dropout=0.2", "seed=1")
    assert losses(tmp_path / "a") != losses(tmp_path / "c")


def test_watching_does_not_change_training(tmp_path: Path) -> None:
    train(tmp_path / "a", *GPT_SMALL, "model.dropout=0.2")
    train(
        tmp_path / "b", *GPT_SMALL, "model.dropout=0.2",
        "eval.every=1", "eval.sample_tokens=30", "checkpoint.every=1", "eval.batch_size=3",
    )  # fmt: skip
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    scores = [{r["step"]: r.get("val/nats_per_token") for r in rows(tmp_path / n)} for n in "ab"]
    assert scores[0][8] == pytest.approx(scores[1][8], abs=1e-6)


def test_untrained_weights_are_scored_or_not(tmp_path: Path) -> None:
    for name, scored in (("true", [0, 3, 6, 8]), ("false", [3, 6, 8])):
        chosen = (*GPT_SMALL, "eval.every=3", f"eval.untrained={name}")
        assert train(tmp_path / name, *chosen) == 0
        found = rows(tmp_path / name)
        assert [row["step"] for row in found if "val/nats_per_token" in row] == scored
        assert len(scored) == settings(tmp_path / "other", *chosen).eval.times(8)
    assert losses(tmp_path / "true") == losses(tmp_path / "false")


def test_dropout_is_off_in_evaluation_and_on_again_after_it(tmp_path: Path) -> None:
    """With so much dropout, losses of equal weights would differ if evaluation left it off."""
    train(tmp_path / "a", *GPT_SMALL, "model.dropout=0.9", "eval.every=100")
    train(tmp_path / "b", *GPT_SMALL, "model.dropout=0.9", "eval.every=1")
    train(tmp_path / "c", *GPT_SMALL, "model.dropout=0.0")
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    assert losses(tmp_path / "a") != losses(tmp_path / "c")


@pytest.mark.parametrize("accumulate", [1, 4])
def test_the_learning_rate_of_every_step_is_the_formula(tmp_path: Path, accumulate: int) -> None:
    train(
        tmp_path / "a", *GPT_SMALL, "optimizer.lr=0.01", "schedule.warmup=3", "schedule.floor=0.1",
        f"train.accumulate={accumulate}",
    )  # fmt: skip
    expected = [0.01 * (0.01 + 0.99 * s / 3) for s in range(3)]
    expected += [0.01 * (0.1 + 0.9 * (0.5 * (1 + math.cos(math.pi * (s / 5))))) for s in range(5)]
    assert [row["lr"] for row in rows(tmp_path / "a") if "lr" in row] == expected


def test_weight_decay_touches_exactly_the_matrices() -> None:
    model = GPT(vocab_size=11, block_size=4, n_layer=1, n_head=2, n_embd=8)
    groups = parameter_groups(model, 0.01, {}, 0.1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    members = [(names[id(p)], group["weight_decay"]) for group in groups for p in group["params"]]
    assert sorted(name for name, _ in members) == sorted(names.values())  # each once
    layer = ("attention.qkv", "attention.projection", "feed_forward.expand")
    layer += ("feed_forward.projection",)
    matrices = {f"blocks.0.{name}.weight" for name in layer} | {"token_embedding.weight"}  # tied
    assert {name for name, decay in members if decay == 0.1} == matrices
    assert all(decay == 0.0 for name, decay in members if name not in matrices)
    untied = GPT(vocab_size=11, block_size=4, n_layer=1, n_head=2, n_embd=8, tie_weights=False)
    group = next(
        group
        for group in parameter_groups(untied, 0.01, {}, 0.1)
        if any(p is untied.head.weight for p in group["params"])
    )
    assert group["weight_decay"] == 0.1


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_non_finite_numbers_never_reach_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    nats, calls = nats_N, [0]

    def poisoned(logits: torch.Tensor, targets: torch.Tensor, **rest: Any) -> torch.Tensor:
        calls[0] += logits.requires_grad
        if calls[0] <= 5 or not logits.requires_grad:
            return nats(logits, targets, **rest)
        if where == "loss":
            return nats(logits, targets, **rest) * math.nan
        logits.register_hook(lambda gradient: gradient * math.inf)
        return nats(logits, targets, **rest)

    monkeypatch.setattr(loss, "nats_N", poisoned)
    assert train(tmp_path / "a", *GPT_SMALL) == 1
    found = summary(tmp_path / "a")
    assert found["status"] == "non_finite"
    assert "step 5" in found["error"]
    assert ("blocks" in found["error"] or "embedding" in found["error"]) or where == "loss"
    run = tmp_path / "a" / "run"
    saved = checkpoint.load(run / "checkpoints", StepCheckpoint)
    assert saved is not None
    assert saved.step == 3
    assert all(tensor.isfinite().all() for tensor in saved.model.values())
    assert "NaN" not in (run / "metrics.jsonl").read_text()
    assert len(rows(tmp_path / "a")) == 5


def test_out_of_memory_says_what_to_lower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:125] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")  # fmt: skip # noqa: E501

    monkeypatch.setattr(trainer, "add_gradients", full)
    assert train(tmp_path / "a", *GPT_SMALL, "eval.every=100", "data.split=[0.9,0,0.1]") == 1
    assert "lower train.batch_size=2" in summary(tmp_path / "a")["error"]
    assert "Traceback" not in capfd.readouterr().err


def test_a_bug_is_recorded_with_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "draw_batch", lambda *arguments: 1 / 0)
    assert train(tmp_path / "a", *GPT_SMALL) == 1
    assert summary(tmp_path / "a")["status"] == "failed"
    log = (tmp_path / "a/run/train.log").read_text()
    assert "Traceback" in log
    assert "ZeroDivisionError" in log


def test_without_validation_the_last_weights_are_tested(tmp_path: Path) -> None:
    assert train(tmp_path / "a", *GPT_SMALL, "data.split=[0.9,0,0.1]") == 0
    found = summary(tmp_path / "a")
    assert found["val"] is None
    assert found["best"] is None
    assert found["test"]["tokens"] > 0


def test_the_test_score_is_that_of_the_best_weights(tmp_path: Path) -> None:
    """A learning rate that ruins the model late: the best weights are earlier ones."""
    ruin = ("optimizer.lr=3.0", "schedule=constant", "train.clip=null", "eval.every=2")
    train(tmp_path / "a", *GPT_SMALL, *ruin, "optimizer.weight_decay=0.0")
    found = summary(tmp_path / "a")
    scores = {row["step"]: row.get("val/nats_per_token") for row in rows(tmp_path / "a")}
    best = min((score, step) for step, score in scores.items() if score is not None)
    assert found["best"]["step"] == best[1] < 8
    assert found["val"]["nats_per_token"] == best[0]
    assert found["test"]["nats_per_token"] < scores[8]


def test_an_existing_folder_is_refused_untouched(tmp_path: Path) -> None:
    train(tmp_path / "a", *GPT_SMALL)
    before = {p: p.read_bytes() for p in (tmp_path / "a/run").rglob("*") if p.is_file()}
    with pytest.raises(UsageError, match="exists already"):
        train(tmp_path / "a", *GPT_SMALL)
    assert before == {p: p.read_bytes() for p in (tmp_path / "a/run").rglob("*") if p.is_file()}


@pytest.mark.parametrize("override", ["data.split=[0.9998,0.0001,0.0001]", "train.seq_len=40000"])
def test_a_split_shorter_than_a_sequence_is_refused(tmp_path: Path, override: str) -> None:
    with pytest.raises(UsageError, match=r"split has \d+ tokens.*train.seq_len=\d+"):
        train(tmp_path / "a", "model=bigram", override)
    assert not (tmp_path / "a/run").exists()


def test_metrics_are_strict_json_also_when_a_score_overflows(tmp_path: Path) -> None:
    from harness.common.rows import strict_json

    line = strict_json({"a": math.nan, "b": [math.inf, 1.5], "c": {"d": -math.inf}})
    assert json.loads(line) == {"a": None, "b": [None, 1.5], "c": {"d": None}}


def test_bf16_and_fp32_agree_on_the_score(tmp_path: Path) -> None:
    train(tmp_path / "a", *GPT_SMALL, "precision=fp32")
    train(tmp_path / "b", *GPT_SMALL, "precision=bf16")
    a, b = (summary(tmp_path / name)["val"]["nats_per_token"] for name in "ab")
    assert a != b
    assert a == pytest.approx(b, rel=0.005)


@pytest.mark.long
def test_compiled_training_equals_eager(tmp_path: Path) -> None:
    train(tmp_path / "a", *GPT_SMALL)
    train(tmp_path / "b", *GPT_SMALL, "compile=true")
    np.testing.assert_allclose(losses(tmp_path / "a"), losses(tmp_path / "b"), rtol=1e-4)


def test_sampling_leaves_the_generator_and_the_mode_alone() -> None:
    model = GPT(vocab_size=11, block_size=4, n_layer=1, n_head=2, n_embd=8, dropout=0.5).train()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    generate(model, torch.tensor([[1]]), 10, SamplingParams())
    assert model.training
    assert torch.equal(before, torch.get_rng_state())


def test_a_bad_initialization_is_noticed() -> None:
    assert "more than 10 %" not in recorder.first_loss_line(math.log(65) * 1.05, 65)
    assert "more than 10 %" in recorder.first_loss_line(math.log(65) * 1.2, 65)
    assert "more than 10 %" not in recorder.first_loss_line(0.0, 1)  # one token: nothing to guess
