"""In fp16 and bf16 a model trains and is scored as in fp32, on a CPU too; TF32 is as it is set."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.common.errors import UsageError
from harness.common.paths import CONF
from harness.compute import race
from harness.compute.device import Compute
from harness.compute.precision import require_kernels
from harness.evaluation import score as metrics
from harness.evaluation.nats import nats_N, score_nats
from harness.runs import checkpoint
from harness.runs.checkpoint import StepCheckpoint
from harness.training import loss
from tests.small_runs import GPT_SMALL, rows, summary, trace, train
from tests.zoo_models import TRAINED, fresh, node, of_each_kind, random_ids
from zoo.language_model import LanguageModel

CPU = torch.device("cpu")
FP16 = (*GPT_SMALL, "precision=fp16", "checkpoint.every=4", "eval.every=100")

# oneDNN, ATen and MKL as on a processor without AVX-512 and bf16.
LESSER = {
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}


def refused(name: str, precision: str) -> bool:
    """Whether this CPU can't compute the model so. Only oneDNN's LSTM needs kernels it may lack."""
    try:
        require_kernels(fresh(node(name)).train(), Compute(CPU, precision), name)
    except UsageError as error:
        said = str(error)
    else:
        return False
    assert name == "lstm"
    assert said.startswith(f"precision={precision}: cpu can't compute model=lstm in it (")
    assert said.endswith("set precision=fp32")
    assert "\n" not in said
    return True


def what_is_refused() -> dict[str, Any]:
    """Every model in every precision: it trains, is scored and decodes, or it is refused."""
    found = []
    for name in TRAINED:
        for precision in ("fp32", "bf16", "fp16"):
            if refused(name, precision):
                found.append([name, precision])
                continue
            model, compute, ids = (
                fresh(node(name)).train(),
                Compute(CPU, precision),
                random_ids(2, 9),
            )
            with compute.autocast():
                features = model.features(ids[:, :-1])
            loss.add_gradients(model, features, ids[:, 1:], compute, torch.ones(()))
            metrics.token_nats(model.eval(), random_ids(1, 40)[0].numpy(), compute)
            cache = model.init_cache(2)
            with torch.inference_mode(), compute.autocast():
                for token in ids.split(1, dim=1):
                    model(token, cache)
    return {"auto": Compute.choose("cpu", "auto").precision, "refused": found}


@pytest.mark.long
def test_on_a_lesser_cpu_what_cannot_be_computed_is_refused() -> None:
    """Simulated: the libraries are told to use no more than AVX2."""
    code = (
        "import json; from tests.compute.test_precision import what_is_refused; "
        "print(json.dumps(what_is_refused()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | LESSER, cwd=CONF.parent, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["auto"] == "fp32"
    if platform.machine() in ("x86_64", "AMD64"):
        assert found["refused"] == [["lstm", "bf16"], ["lstm", "fp16"]]


@pytest.mark.parametrize(("ratio", "expected"), [(100.0, "fp32"), (1.0, "fp32"), (0.25, "bf16")])
def test_what_is_emulated_is_not_chosen(
    ratio: float, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ratio: bf16's seconds to those of fp32 by what multiplies now."""
    found = {"bf16": ratio, race.current_matmul(): 1.0}
    monkeypatch.setattr(race, "race", lambda kind: found)
    assert race.faster_precision("cpu") == expected


def test_refused_before_there_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing that fails in fp32 too is blamed on the precision."""

    def no_kernel(*_: Any, **__: Any) -> Any:
        if torch.is_autocast_enabled("cpu"):
            raise RuntimeError("no kernel for it. More of it\nand more")
        return linear(*_, **__)

    linear = torch.nn.functional.linear
    chosen = (*GPT_SMALL, "precision=bf16")
    monkeypatch.setattr(torch.nn.functional, "linear", no_kernel)
    with pytest.raises(
        UsageError, match=r"bf16: cpu can't .*\(no kernel for it\); set precision=fp32"
    ):
        train(tmp_path / "a", *chosen)
    assert not (tmp_path / "a/run").exists()
    assert train(tmp_path / "a", *GPT_SMALL, "train.steps=1") == 0
    linear = no_kernel_at_all
    require_kernels(fresh(node("gpt")), Compute(CPU, "bf16"), "gpt")


def no_kernel_at_all(*_: Any, **__: Any) -> Any:
    raise RuntimeError("no kernel for it")


def trained(name: str) -> LanguageModel:
    """After twenty steps on one batch: far from uniform, so that an error would show."""
    torch.manual_seed(0)
    model = fresh(node(name)).train()
    ids = random_ids(4, 17)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(20):
        optimizer.zero_grad()
        nats = score_nats(model, model(ids[:, :-1], return_features=True), ids[:, 1:]).mean()
        nats.backward()
        optimizer.step()
    return model.eval()


# Relative differences of the mean of 79 tokens from fp32: at most four times what was measured, the
# largest of a group, with AVX-512 and kernels for bf16, and as on a processor without (`LESSER`).
# All are rounding: fp16, with 3 bits more, differs by a third to a
# thirteenth. Normalized keys and gates, which decide what a state forgets, raise it.
DELTA = {"bf16": 4 * 4.5e-3, "fp16": 4 * 3.5e-4}  # 4.48e-3 and 3.42e-4: gated_deltanet
MIXED = {"bf16": 5e-3, "fp16": 4 * 2.3e-4}  # 1.3e-3 and 2.3e-4: gpt_modern's and the hybrid's
OTHERS = {"bf16": 4 * 9.3e-4, "fp16": 4 * 1.1e-4}  # mamba2's 9.25e-4; gru's 1.03e-4
CLOSE = {"bf16": 4 * 2.0e-4, "fp16": 4 * 6e-5}  # gpt3's 1.99e-4; hf's 5.7e-5
EXACT = {"bf16": 0.0, "fp16": 0.0}  # a table: nothing is multiplied
GROUPS = {
    "bigram": EXACT, "gated_deltanet": DELTA, "gated_deltanet_hybrid": MIXED, "gpt_modern": MIXED,
    **dict.fromkeys(("bow", "gpt", "gpt1", "gpt3", "hf", "lstm", "megabyte", "mlp"), CLOSE),
}  # fmt: skip


@pytest.mark.parametrize("name", of_each_kind(TRAINED))
def test_exact_evaluation_is_the_same_in_every_precision(name: str) -> None:
    model, ids = trained(name), random_ids(1, 80)[0].numpy()
    exact = metrics.token_nats(model, ids, Compute(CPU, "fp32")).mean()
    assert abs(exact - 3.135) > 0.01  # ln 23: it has learnt something
    for precision in ("bf16", "fp16"):
        if not refused(name, precision):
            mean = metrics.token_nats(model, ids, Compute(CPU, precision)).mean()
            assert mean == pytest.approx(exact, rel=GROUPS.get(name, OTHERS)[precision], abs=0)
            assert bool(mean == exact) is (name == "bigram")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_the_loss_is_in_fp32(precision: str) -> None:
    model, compute = fresh(node("gpt")), Compute(CPU, precision)
    ids = random_ids(2, 9)
    with compute.autocast():
        features = model(ids[:, :-1], return_features=True)
        assert (
            model.head(features).dtype == {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        )
    total = loss.add_gradients(model, features, ids[:, 1:], compute, torch.ones(()))
    assert total.dtype == torch.float32
    assert {p.grad.dtype for p in model.parameters()} == {torch.float32}
    assert nats_N(torch.zeros(1, 5).to(torch.float16), torch.tensor([1])).dtype == torch.float32


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


@pytest.mark.parametrize("name", of_each_kind(TRAINED))
def test_every_architecture_learns_in_fp16(name: str) -> None:
    """A first step may overflow; then the scale is lowered until none does."""
    if refused(name, "fp16"):
        return
    torch.manual_seed(0)
    model, compute = fresh(node(name)).train(), Compute(CPU, "fp16")
    ids = random_ids(2, 17)
    scaler = torch.amp.GradScaler("cpu")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(6):
        with compute.autocast():
            features = model(ids[:, :-1], return_features=True)
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
    nats, calls = nats_N, [0]

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
    resumed = checkpoint.load(folder, StepCheckpoint)
    assert resumed is not None
    assert resumed.scaler == saved[6]["scaler"]


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
