"""A machine that computes what it should not is found out, and a right one is not blamed."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from harness.cli.hydra_app import compose
from harness.compute.device import Compute
from harness.config.settings import Settings, read_settings
from harness.diagnostics.doctor import examine, machine, trainings
from harness.diagnostics.doctor.operators import OperatorCheck
from harness.diagnostics.doctor.trainings import Deviation, deviation, reference, train_on
from harness.referee.certify import of_machine
from harness.runs import device_record
from tests.conftest import Ended
from tests.small_runs import FILES, GPT_SMALL
from tests.zoo_models import TRAINED

CPU = torch.device("cpu")
ops = torch.ops.aten


def scaled(result: Any, by: float = 1.001) -> Any:
    """The first tensor of a result, a little off."""
    if isinstance(result, tuple):
        return (scaled(result[0], by), *result[1:])
    return result * by


def without_a_row(result: Any) -> Any:
    result = result.clone()
    result[result.norm(dim=1).argmax()] = 0
    return result


def spoil_weights(args: Any) -> None:
    for weight in args[0]:
        weight.mul_(1.001)


class WrongKernel(TorchDispatchMode):
    """An operator that is wrong in fp32 and bf16, and right in float64."""

    def __init__(self, name: str, spoil: Callable[[Any], Any]) -> None:
        super().__init__()
        self._name, self._spoil = name, spoil

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        floats = [x for x in torch.utils._pytree.tree_leaves(args) if isinstance(x, torch.Tensor)]
        is_double = any(x.dtype == torch.float64 for x in floats)
        if not str(func).startswith(f"aten.{self._name}.") or is_double:
            return result
        return self._spoil(args if result is None else result)


WRONG: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "a product": ("mm", scaled),
    "a product with a bias": ("addmm", scaled),
    "a normalization": ("native_layer_norm", lambda result: scaled(result, 1.0001)),
    "the gradient of a normalization": ("native_layer_norm_backward", scaled),
    "an activation": ("gelu", scaled),
    "the gradient of the embedding": ("embedding_dense_backward", without_a_row),
    "the loss": ("_log_softmax", scaled),
}


@cache
def small() -> Settings:
    chosen = [*GPT_SMALL, "train.seq_len=8", "train.batch_size=2", "train.clip=null", "device=cpu"]
    return read_settings(compose(chosen, known=FILES))


@cache
def known(precision: str) -> tuple[trainings.Trained, trainings.Trained]:
    return reference(small()), reference(small(), precision)


def tried(precision: str) -> tuple[OperatorCheck, Deviation]:
    check = OperatorCheck()
    own = train_on(small().replace(precision=precision), Compute(CPU, precision), check)
    return check, deviation(own, *known(precision), precision)


@pytest.mark.parametrize(
    "precision",
    ["fp32", *(pytest.param(name, marks=pytest.mark.long) for name in ("bf16", "fp16"))],
)
def test_what_rounding_explains_is_not_blamed(precision: str) -> None:
    check, found = tried(precision)
    assert check.wrong == []
    assert check.checked > 20
    assert found.is_rounding, found
    # The bounds are not so wide that nothing could exceed them.
    assert max(check.worst, found.gradients) > 0.05


@pytest.mark.parametrize(
    "what",
    ["a product", *(pytest.param(w, marks=pytest.mark.long) for w in WRONG if w != "a product")],
)
def test_a_wrong_operator_is_named_with_its_shape(what: str) -> None:
    name, spoil = WRONG[what]
    with WrongKernel(name, spoil):
        check, found = tried("fp32")
    named = {operator.name.partition(".")[0] for operator in check.wrong}
    assert named == {name}
    assert "×" in str(check.wrong[0])
    assert not found.is_rounding


@pytest.mark.long
def test_a_wrong_update_is_found_though_no_operator_returns_it() -> None:
    with WrongKernel("_fused_adamw_", spoil_weights):
        check, found = tried("fp32")
    assert check.wrong == []
    assert found.gradients < trainings.FACTOR < found.steps


@pytest.mark.parametrize("late", [1, 2])
def test_a_decision_that_falls_otherwise_once_is_not_blamed(
    late: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two trainings that begin alike and part later; a wrong update parts both (above)."""
    seeds = []

    def parted(*arguments: Any) -> Deviation:
        seeds.append(arguments[0].losses[0])
        return Deviation(0.1, 1.0, 1000.0 if len(seeds) <= late else 1.0, "gate (4×2)")

    monkeypatch.setattr(examine, "deviation", parted)
    monkeypatch.setattr(examine, "_settings", lambda model, batch_size: small())
    plan = examine.Plan(["gpt"], "cpu", ["fp32"], [2], [False])
    (found,) = examine.results_of("gpt", plan, Compute(CPU, "fp32"))
    assert len(set(seeds)) == 2  # of other weights
    assert len(found.wrong) == late - 1
    assert found.parted == 1000.0
    assert found.outcome == ("✓ (1 of 2 parted)" if late == 1 else "✗ (1 of 2 parted)")


def test_a_reference_that_was_rounded_would_find_nothing() -> None:
    """The negative control: the reference is more exact than any of the precisions."""
    exact, rounded = known("fp32")
    error = abs(exact.losses[-1] - rounded.losses[-1])
    assert 0 < error < 1e-5
    assert all(g.dtype == torch.float64 for g in exact.gradients.values())
    assert any(loss != torch.tensor(loss, dtype=torch.float32).item() for loss in exact.losses)


def test_what_was_found_is_kept_and_named_in_certificates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    compute = Compute(CPU, "fp32")
    assert of_machine(small(), compute) == []
    trial = device_record.trial_key("gpt", "fp32", False)
    path = device_record.enter(compute, "2026-01-02", {trial: device_record.RIGHT})
    (check,) = of_machine(small(), compute)
    assert check.result == "passed"
    assert f"gpt in fp32: {device_record.RIGHT}, by harness.doctor on 2026-01-02" in check.words
    assert f"torch {torch.__version__}" in check.words
    assert of_machine(small(), Compute(CPU, "bf16")) == []
    device_record.enter(compute, "2026-01-03", {trial: "mm(float32 2×2) is off"})
    (check,) = of_machine(small(), compute)
    assert (check.result, "mm(float32 2×2)" in check.words) == ("failed", True)
    assert path is not None
    Path(path).write_text('{"machines": [')
    assert of_machine(small(), compute) == []


def test_the_command(
    command: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    asked = ("bigram", "--device", "cpu", "--precision", "fp32", "--batch-size", "2", "--json")
    ended = command("doctor", *asked)
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    (result,) = found["results"]
    assert (result["model"], result["wrong"], result["skipped"]) == ("bigram", [], None)
    assert found["versions"]["torch"] == torch.__version__
    with WrongKernel("_log_softmax", scaled):
        ended = command("doctor", *asked[:-1])
    assert ended.code == 1
    assert "✗ bigram in fp32, batch 2: _log_softmax" in ended.out
    assert command("doctor", "ngram").code == 2
    ended = command("doctor", "gtp")
    assert (ended.code, "Did you mean gpt?" in ended.err) == (2, True)


@pytest.mark.long
def test_what_it_is_good_for() -> None:
    compute = Compute(CPU, "fp32")
    rate = machine.product_rate(compute)
    assert rate is not None
    assert rate > 1e8
    chosen = small().replace(train=small().train.replace(steps=1000))
    seconds, how = machine.training_seconds(chosen, compute, rate)
    assert (seconds is not None and seconds > 0.1, how) == (True, "timed")
    slow, how = machine.training_seconds(chosen, compute, 1e3)
    assert (slow is not None and slow > 1e4, how) == (True, "at least, by its FLOPs")


@pytest.mark.long
@pytest.mark.parametrize("name", TRAINED)
def test_every_model_is_right_here(name: str, command: Callable[..., Ended]) -> None:
    ended = command("doctor", name, "--device", "cpu", "--batch-size", "2")
    assert ended.code == 0, ended.out


@pytest.mark.parametrize("kept", ["{", "[1]", '{"MACHINE": 5}', '{"MACHINE": {"gpt in fp32": 5}}'])
def test_a_damaged_record_says_nothing(
    kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    compute = Compute(CPU, "fp32")
    path = tmp_path / device_record.NAME
    path.parent.mkdir()
    path.write_text(kept.replace("MACHINE", device_record.machine_key(compute)))
    assert device_record.found_of("gpt", compute, False) is None
    assert device_record.enter(compute, "2026-01-02", {"gpt in fp32": "off"}) == str(path)
    found = device_record.found_of("gpt", compute, False)
    assert found is not None
    assert "gpt in fp32: off" in found[0]
