"""In fp16 and bf16 a model trains and is scored as in fp32, on a CPU too; TF32 is as it is set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from harness import checkpoint, loss, metrics
from harness.device import Compute
from zoo.language_model import LanguageModel

from .training import rows, summary, trace, train
from .zoo_models import NAMES, fresh, node, random_ids

CPU = torch.device("cpu")
GPT_SMALL = ("model=gpt", "model.n_layer=2", "model.n_head=2", "model.n_embd=16")
FP16 = (*GPT_SMALL, "precision=fp16", "checkpoint.every=4", "eval.every=100")


def trained(name: str) -> LanguageModel:
    """After twenty steps on one batch: far from uniform, so that an error would show."""
    torch.manual_seed(0)
    model = fresh(node(name)).train()
    ids = random_ids(4, 17)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(20):
        optimizer.zero_grad()
        nats = loss.score_nats(model, model.features(ids[:, :-1]), ids[:, 1:]).mean()
        nats.backward()
        optimizer.step()
    return model.eval()


@pytest.mark.parametrize("name", NAMES)
def test_exact_evaluation_is_the_same_in_every_precision(name: str) -> None:
    model, ids = trained(name), random_ids(1, 80)[0].numpy()  # more than a block
    means = {
        precision: metrics.token_nats(model, ids, Compute(CPU, precision)).mean()
        for precision in ("fp32", "bf16", "fp16")
    }
    assert abs(means["fp32"] - 3.135) > 0.01  # ln 23: it has learnt something
    assert means["bf16"] == pytest.approx(means["fp32"], rel=0.005)
    assert means["fp16"] == pytest.approx(means["fp32"], rel=0.005)
    assert means["bf16"] != means["fp32"] or name == "bigram"  # a table: nothing is multiplied


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_the_loss_is_in_fp32(precision: str) -> None:
    model, compute = fresh(node("gpt")), Compute(CPU, precision)
    ids = random_ids(2, 9)
    with compute.autocast():
        features = model.features(ids[:, :-1])
        assert (
            model.head(features).dtype == {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        )
    total = loss.add_gradients(model, features, ids[:, 1:], compute, torch.ones(()))
    assert total.dtype == torch.float32
    assert {p.grad.dtype for p in model.parameters()} == {torch.float32}
    assert (
        loss.nats_N(torch.zeros(1, 5).to(torch.float16), torch.tensor([1])).dtype == torch.float32
    )


def test_fp16_trains_like_fp32(tmp_path: Path) -> None:
    train(tmp_path / "a", *FP16)
    train(tmp_path / "b", *FP16, "precision=fp32")
    half, full = ([row["train/loss"] for row in rows(tmp_path / name)[:8]] for name in "ab")
    assert half != full
    assert half == pytest.approx(full, rel=2e-3)
    found = summary(tmp_path / "a")
    assert found["machine"]["precision"] == "fp16"
    assert found["val"]["nats_per_token"] == pytest.approx(
        summary(tmp_path / "b")["val"]["nats_per_token"], rel=0.005
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_architecture_learns_in_fp16(name: str) -> None:
    """A first step may overflow; then the scale is lowered until none does."""
    torch.manual_seed(0)
    model, compute = fresh(node(name)).train(), Compute(CPU, "fp16")
    ids = random_ids(2, 17)
    scaler = torch.amp.GradScaler("cpu")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(6):
        with compute.autocast():
            features = model.features(ids[:, :-1])
        weight = scaler.scale(torch.tensor(1 / 32))
        total = loss.add_gradients(model, features, ids[:, 1:], compute, weight)
        losses.append(total.item() / 32)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    assert scaler.get_scale() >= 2**14
    assert losses[-1] < losses[0] - 0.03


def test_an_overflow_in_fp16_skips_the_step_and_lowers_the_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a resumed run goes on with the lowered scale: equal traces, bit for bit."""
    nats, calls = loss.nats_N, [0]

    def overflowing(logits: torch.Tensor, targets: torch.Tensor, **rest: Any) -> Any:
        calls[0] += logits.requires_grad
        if calls[0] == 3 and logits.requires_grad:
            logits.register_hook(lambda gradient: gradient * torch.inf)
        return nats(logits, targets, **rest)

    monkeypatch.setattr(loss, "nats_N", overflowing)
    chosen = (*FP16, "checkpoint.every=1", "train.steps=6")
    assert train(tmp_path / "a", *chosen) == 0
    folder = tmp_path / "a/run/checkpoints"
    saved = {step: torch.load(folder / f"step-{step:08d}.pt", weights_only=True) for step in (5, 6)}
    assert saved[6]["scaler"]["scale"] == 2**15
    skipped = rows(tmp_path / "a")[2]
    assert skipped["grad_norm"] is None  # infinite, in strict JSON,
    assert skipped["grad_norm_clipped"] is None  # and nothing was clipped
    before = trace(tmp_path / "a")
    (folder / "step-00000006.pt").unlink()
    path = tmp_path / "a/run/summary.json"
    path.write_text(path.read_text().replace("finished", "running"))
    scales: list[float] = []
    update = torch.amp.GradScaler.update
    monkeypatch.setattr(
        torch.amp.GradScaler,
        "update",
        lambda self: (scales.append(self.get_scale()), update(self))[1],
    )
    train(tmp_path / "a", *chosen, "resume=true")
    assert scales == [2**15]
    assert trace(tmp_path / "a") == before
    assert checkpoint.load(folder, "step")["scaler"] == saved[6]["scaler"]  # type: ignore[index]


@pytest.mark.parametrize("wanted", [True, False])
def test_tf32_is_as_it_is_set(monkeypatch: pytest.MonkeyPatch, wanted: bool) -> None:
    """Seen from torch's own switches, as if there were a GPU; on a CPU they are left alone."""
    precision, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        compute = Compute.choose("cuda", "fp32", tf32=wanted)
        assert compute.tf32 is wanted
        assert torch.get_float32_matmul_precision() == ("high" if wanted else "highest")
        assert torch.backends.cuda.matmul.allow_tf32 is torch.backends.cudnn.allow_tf32 is wanted
        other = Compute.choose("cpu", "fp32", tf32=not wanted)
        assert not other.tf32
        assert torch.backends.cudnn.allow_tf32 is wanted
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = convolutions


def test_tf32_is_recorded(tmp_path: Path) -> None:
    assert train(tmp_path / "a", *GPT_SMALL, "tf32=true", "train.steps=1") == 0
    assert "tf32: true" in (tmp_path / "a/run/config.yaml").read_text()
    assert summary(tmp_path / "a")["machine"]["tf32"] is False  # a CPU has none
