"""Every optimizer of torch and of conf goes on from a checkpoint bit for bit, or is refused."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch

from harness.common.errors import UsageError
from harness.config.keys import names_in_group
from harness.config.settings import Settings
from harness.diagnostics.comparison import differing_keys
from harness.training.checks import check_settings
from tests.training.resuming import STEPS, Training, differing, resume, save, small

TORCHS = {
    name: cls
    for name, cls in vars(torch.optim).items()
    if inspect.isclass(cls) and issubclass(cls, torch.optim.Optimizer)
}
del TORCHS["Optimizer"]
SWITCHES = [
    (name, switch)
    for name, cls in TORCHS.items()
    for switch, parameter in inspect.signature(cls).parameters.items()
    if "bool" in str(parameter.annotation)
]
ODD = "tests.training.odd_optimizers"


def named(target: str, **options: object) -> Settings:
    """torch's Muon takes nothing but matrices, which a bigram is made of."""
    overrides = ("model=bigram",) if target == "torch.optim.Muon" else ()
    if "nesterov" in options and target == "torch.optim.SGD":
        options["momentum"] = 0.9
    return small(*overrides).replace(optimizer={"_target_": target, "lr": 0.01} | options)


def refusal(settings: Settings) -> str | None:
    try:
        check_settings(settings)
    except UsageError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", names_in_group("optimizer"))
def test_every_optimizer_of_the_configuration(tmp_path: Path, name: str) -> None:
    assert refusal(small(f"optimizer={name}")) is None
    assert differing(tmp_path, small(f"optimizer={name}")) == []


def test_muons_views_of_convolution_kernels(tmp_path: Path) -> None:
    assert differing(tmp_path, small("model=wavenet", "optimizer=muon")) == []


# What these want no training here gives: a closure, sparse gradients, a GPU, no `no_grad`.
REFUSED = {
    "LBFGS": "LBFGS doesn't support per-parameter options",
    "SparseAdam": "SparseAdam does not support dense gradients",
    "capturable": "supported devices",
    "differentiable": "requires grad",
}


ONES = [*((name, "") for name in TORCHS), *(each for each in SWITCHES if each[1] in REFUSED)]
MORE = [each for each in SWITCHES if each[1] not in REFUSED]  # long tests


@pytest.mark.parametrize(
    ("name", "switch"), [*ONES, *(pytest.param(*each, marks=pytest.mark.long) for each in MORE)]
)
def test_every_optimizer_of_torch(tmp_path: Path, name: str, switch: str) -> None:
    chosen = named(f"torch.optim.{name}", **({switch: True} if switch else {}))
    expected = REFUSED.get(name) or REFUSED.get(switch)
    if expected:
        assert expected in (refusal(chosen) or "")
        assert "\n" not in str(refusal(chosen))
    else:
        assert refusal(chosen) is None
        assert differing(tmp_path, chosen) == []


def test_an_optimizer_for_matrices_alone_is_refused_where_there_are_others() -> None:
    chosen = small().replace(optimizer={"_target_": "torch.optim.Muon", "lr": 0.01})
    assert "Muon only supports 2D parameters" in (refusal(chosen) or "")


def test_switches_that_exclude_each_other_are_refused() -> None:
    chosen = named("torch.optim.AdamW", fused=True, foreach=True)
    assert "`fused` and `foreach` cannot be `True` together" in (refusal(chosen) or "")


@pytest.mark.parametrize("name", ["InGroups", "EveryType"])
def test_whatever_an_optimizer_keeps_is_kept(tmp_path: Path, name: str) -> None:
    """Step counts in groups, tables that groups share, every dtype, nests, empty tensors."""
    chosen = named(f"{ODD}.{name}")
    assert refusal(chosen) is None
    for at in (0, 1, 3, 5):
        assert differing(tmp_path, chosen, at) == []
    groups = resume(tmp_path, chosen).trainer._optimizer.param_groups
    shared = {"InGroups": "table", "EveryType": "shared"}[name]
    assert len(groups) > 1
    assert len({id(group[shared]) for group in groups}) == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Elsewhere", "can't be resumed bit for bit: after a checkpoint ['weights'][0] differs"),
        ("PerMap", "can't be resumed bit for bit: after a checkpoint ['weights'][0] differs"),
        ("OwnOptions", "can't be resumed bit for bit"),
        ("Late", "slow is not part of the run"),
        ("NoGradients", "the optimizer removed a gradient"),
    ],
)
def test_an_optimizer_that_could_not_go_on_is_refused_before_it_begins(
    name: str, words: str
) -> None:
    assert words in (refusal(named(f"{ODD}.{name}")) or "")


@pytest.mark.parametrize("schedule", names_in_group("schedule"))
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_schedule_precision_and_average(
    tmp_path: Path, schedule: str, precision: str
) -> None:
    number = names_in_group("schedule").index(schedule)
    optimizer = names_in_group("optimizer")[number % len(names_in_group("optimizer"))]
    more = ("train.ema=0.9", "train.accumulate=2", "model.dropout=0.1", "train.max_norm=1.0")
    chosen = small(f"optimizer={optimizer}", *more)
    chosen = chosen.replace(schedule=small(f"schedule={schedule}").schedule, precision=precision)
    assert differing(tmp_path, chosen) == []


def test_a_loss_scale_that_fell_is_kept_and_skipped_steps_leave_no_state(tmp_path: Path) -> None:
    """The first step overflows: the optimizer has then no state."""
    chosen = small("precision=fp16")
    training = Training(chosen)
    head = training.trainer.model.head.weight
    handle = head.register_hook(lambda gradient: gradient * torch.inf)
    training.train(range(1))
    handle.remove()
    save(tmp_path, training, 1)
    resumed = resume(tmp_path, chosen)
    assert resumed.trainer.guard.skipped == 1
    assert resumed.trainer.state_dict()["scaler"]["scale"] == 2**15
    for each in (training, resumed):
        each.train(range(1, STEPS))
    assert differing_keys(training.trainer.state_dict(), resumed.trainer.state_dict()) == []
