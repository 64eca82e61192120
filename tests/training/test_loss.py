"""The chunked loss equals the plain one, and holds little memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from harness.compute.memory import PeakMemory
from harness.data.batches import IGNORED, draw_batch
from harness.evaluation import nats
from harness.evaluation.nats import score_nats
from harness.training import loss
from tests.small_runs import GPT_SMALL, rows, settings, summary, train
from tests.zoo.laws import CPU
from tests.zoo_models import TRAINED, VOCAB, fresh, length, node, random_ids
from zoo.gpt import GPT
from zoo.language_model import LanguageModel


def gradients(model: LanguageModel) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_chunks_give_the_gradients_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, rows: int, tied: bool
) -> None:
    torch.manual_seed(0)
    model = GPT(50, 8, n_layer=2, n_head=2, n_embd=16, tie_weights=tied).double()
    ids = torch.randint(50, (5, 9))
    plain = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    plain.backward()
    expected = gradients(model)
    model.zero_grad()
    monkeypatch.setattr(nats, "CHUNK_LOGITS", rows * 50)
    total = loss.add_gradients(
        model,
        model(ids[:, :-1], return_features=True),
        ids[:, 1:],
        CPU,
        torch.tensor(1 / 40, dtype=torch.float64),
    )
    assert total.item() / 40 == pytest.approx(plain.item(), abs=1e-6)
    assert gradients(model).keys() == expected.keys()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-12, rtol=0)
    scored = score_nats(model, model(ids[:, :-1], return_features=True), ids[:, 1:])
    assert scored.shape == (5, 8)
    assert scored.mean().item() == pytest.approx(plain.item(), abs=1e-12)


def capped(head: nn.Linear) -> nn.Module:
    head.register_forward_hook(lambda module, inputs, logits: 3 * torch.tanh(logits / 3))
    return head


def doubled(head: nn.Linear) -> nn.Module:
    head.register_forward_pre_hook(lambda module, inputs: (2 * inputs[0],))
    return head


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("changed", [nn.utils.weight_norm, weight_norm, capped, doubled])
def test_a_head_that_is_more_than_a_linear_map_is_trained_as_it_is(
    changed: Callable[[nn.Linear], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By weight norm, as torch made it once and makes it now, and by hooks: in one chunk and in
    many."""
    found = []
    for chunk in (7, 1000):
        torch.manual_seed(0)
        model = GPT(50, 8, n_layer=1, n_head=2, n_embd=16, tie_weights=False).double()
        model.head = changed(model.head)
        ids = torch.randint(50, (5, 9))
        monkeypatch.setattr(nats, "CHUNK_LOGITS", chunk * 50)
        features = model(ids[:, :-1], return_features=True)
        total = loss.add_gradients(model, features, ids[:, 1:], CPU, torch.ones(()).double())
        found.append({"nats": total.double()} | gradients(model))
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        assert gradient.any()
        torch.testing.assert_close(gradient, found[1][name], atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("rows", [7, 1000])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_targets_that_do_not_count_are_left_out(
    monkeypatch: pytest.MonkeyPatch, rows: int, label_smoothing: float
) -> None:
    torch.manual_seed(0)
    model = GPT(50, 8, n_layer=1, n_head=2, n_embd=16).double()
    ids = torch.randint(50, (5, 9))
    targets = ids[:, 1:].clone()
    targets[torch.rand(5, 8) < 0.4] = IGNORED
    counted = int((targets != IGNORED).sum())
    assert 0 < counted < 40
    logits = model(ids[:, :-1]).flatten(0, 1)
    options = {"ignore_index": IGNORED}
    F.cross_entropy(
        logits, targets.flatten(), label_smoothing=label_smoothing, **options
    ).backward()
    plain = F.cross_entropy(logits, targets.flatten(), **options)
    expected = gradients(model)
    model.zero_grad()
    monkeypatch.setattr(nats, "CHUNK_LOGITS", rows * 50)
    total = loss.add_gradients(
        model, model(ids[:, :-1], return_features=True), targets, CPU,
        torch.tensor(1 / counted, dtype=torch.float64), label_smoothing,
    )  # fmt: skip
    assert total.item() / counted == pytest.approx(plain.item(), abs=1e-6)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-12, rtol=0)
    scored = score_nats(model, model(ids[:, :-1], return_features=True), targets)
    assert torch.equal(scored == 0, targets == IGNORED)


def test_a_large_vocabulary_never_holds_all_its_logits() -> None:
    """p50k's 50,281 words, batch 200 × 10, the study notes' width: 402 MB of logits in fp32."""
    model = GPT(50_281, 10, n_layer=1, n_head=4, n_embd=200)
    ids = torch.randint(50_281, (200, 11))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    memory = PeakMemory(torch.device("cpu"))
    before = memory.read()
    loss.add_gradients(
        model, model(ids[:, :-1], return_features=True), ids[:, 1:], CPU, torch.tensor(1 / 2e3)
    )
    assert memory.read() - before < 2000 * 50_281 * 4


def test_the_loss_on_the_last_position_alone(tmp_path: Path) -> None:
    train(tmp_path / "a", *GPT_SMALL, "train.positions=last", "train.steps=1", "schedule=constant")
    train(tmp_path / "b", *GPT_SMALL, "train.steps=1", "schedule=constant")
    chosen = settings(tmp_path / "a", *GPT_SMALL, "resume=true")
    from harness.training.run import load_dataset

    dataset = load_dataset(chosen)
    inputs, targets = draw_batch(dataset.train.ids, 0, 0, 2, 16)
    torch.manual_seed(0)
    model = GPT(dataset.tokenizer.vocab_size, 16, 2, 2, 16)
    expected = F.cross_entropy(model(inputs)[:, -1], targets[:, -1]).item()
    assert rows(tmp_path / "a")[0]["train/loss"] == pytest.approx(expected, rel=1e-6)
    assert summary(tmp_path / "a")["train"]["tokens"] == 2
    assert summary(tmp_path / "b")["train"]["tokens"] == 32
    cost = [summary(tmp_path / name)["train"]["flops"] for name in "ab"]
    assert 0.8 * cost[1] < cost[0] < cost[1]  # the head alone is spared


@pytest.mark.parametrize("name", TRAINED)
def test_chunks_of_every_model(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of those whose features lie in memory with time before the batch."""
    model = fresh(node(name)).double()
    time = length(model)
    ids, targets = random_ids(2, time), random_ids(2, time, seed=2)

    def found() -> dict[str, torch.Tensor]:
        model.zero_grad()
        wanted = {"losses": {}} if model.auxiliary else {}
        features = model(ids, return_features=True, **wanted)
        loss.add_gradients(model, features, targets, CPU, torch.ones((), dtype=torch.float64))
        return gradients(model)

    whole = found()
    monkeypatch.setattr(nats, "CHUNK_LOGITS", 7 * VOCAB)
    torch.testing.assert_close(found(), whole)
