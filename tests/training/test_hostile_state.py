"""A checkpoint whole by its digest whose tensors and values are not those of its run."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.common.errors import RunFailure
from harness.diagnostics.comparison import differing_keys
from tests.runs.tampering import sign
from tests.training.resuming import Training, resume, save, small

Contents = dict[str, Any]
warnings.filterwarnings("ignore", message=".*(quantized|Sparse).*")


def chosen() -> Any:
    """Adam with its largest second moments, whose kernel is fused; an average; a loss scale."""
    node = {"_target_": "torch.optim.Adam", "lr": 0.01, "fused": True, "amsgrad": True}
    settings = small("train.ema=0.9")
    return settings.replace(optimizer=node, precision="fp16")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    """What a training of three steps saves. For reading only."""
    folder = tmp_path_factory.mktemp("whole")
    save(folder, Training(chosen()).train(range(3)), 3)
    contents: Contents = torch.load(folder / "step-00000003.pt", weights_only=True)
    return contents


def forge(folder: Path, contents: Contents) -> None:
    path = folder / "step-00000003.pt"
    torch.save(contents, path)
    sign(path)


def moment(contents: Contents) -> Contents:
    state: Contents = contents["optimizer"]["state"][0]
    return state


FLAWS: dict[str, tuple[Callable[[Tensor], object], str]] = {
    "of stride 0": (lambda x: x.flatten()[0].expand(x.shape), "whose elements share memory"),
    "overlapping": (
        lambda x: torch.zeros(x.numel()).as_strided(x.shape, (1,) * x.dim()),
        "whose elements share memory",
    ),
    "sparse": (lambda x: x.to_sparse(), "a sparse or nested tensor"),
    "quantized": (lambda x: torch.quantize_per_tensor(x, 1.0, 0, torch.qint8), "quantized"),
    "without memory": (lambda x: x.to("meta"), "a tensor of device meta"),
    "of another type": (lambda x: x.double(), "is float64 [11, 16]; the run has float32 [11, 16]"),
    "complex": (lambda x: x.to(torch.complex64), "is complex64 [11, 16]; the run has float32"),
    "whole": (lambda x: x.long(), "is int64 [11, 16]; the run has float32"),
    "of another shape": (lambda x: x[:1].clone(), "is float32 [1, 16]; the run has"),
    "turned": (lambda x: x.T, "is float32 [16, 11]; the run has"),
    "one number": (lambda x: torch.tensor(0.0), "is float32 []; the run has"),
    "empty": (lambda x: torch.zeros(0), "is float32 [0]; the run has"),
    "a plain number": (lambda x: 0.5, "is 0.5, not a tensor"),
    "nothing": (lambda x: None, "is null, not a tensor"),
}
PLACES: dict[str, Callable[[Contents], tuple[Contents, str]]] = {
    "optimizer.state.0.exp_avg": lambda all: (moment(all), "exp_avg"),
    "model.token_embedding.weight": lambda all: (all["model"], "token_embedding.weight"),
    "average.module.token_embedding.weight": lambda all: (
        all["average"],
        "module.token_embedding.weight",
    ),
}


@pytest.mark.parametrize("flaw", FLAWS)
@pytest.mark.parametrize("place", PLACES)
def test_a_tensor_that_is_not_the_runs_is_refused_by_its_name(
    whole: Contents, tmp_path: Path, place: str, flaw: str
) -> None:
    contents = copy.deepcopy(whole)
    change, words = FLAWS[flaw]
    holder, name = PLACES[place](contents)
    assert holder[name].shape == (11, 16)
    holder[name] = change(holder[name])
    refused(tmp_path, contents, place, words)


def refused(folder: Path, contents: Contents, *words: str) -> None:
    forge(folder, contents)
    with pytest.raises(RunFailure) as refusal:
        resume(folder, chosen())
    for word in words:
        assert word in str(refusal.value)
    assert "\n" not in str(refusal.value)


def deep(levels: int) -> list[Any]:
    nest: list[Any] = []
    for _ in range(levels):
        nest = [nest, nest]
    return nest


def endless() -> list[Any]:
    nest: list[Any] = []
    nest.append(nest)
    return nest


OTHERS: dict[str, tuple[Callable[[Contents], object], str]] = {
    "no moments": (lambda all: all["optimizer"]["state"].clear(), "optimizer.state.0 is missing"),
    "no moments of one weight": (
        lambda all: all["optimizer"]["state"].pop(2),
        "optimizer.state.2 is missing",
    ),
    "a moment missing": (lambda all: moment(all).pop("exp_avg_sq"), "state.0.exp_avg_sq is miss"),
    "a moment too many": (
        lambda all: moment(all).update(more=torch.zeros(1)),
        "optimizer.state.0.more is not part of the run",
    ),
    "a moment of another name": (
        lambda all: moment(all).update(exp_avg_2=moment(all).pop("exp_avg")),
        "optimizer.state.0.exp_avg is missing",
    ),
    "a negative step": (lambda all: moment(all)["step"].fill_(-1), "is -1.0: no step count"),
    "an endless step": (lambda all: moment(all)["step"].fill_(torch.inf), "is inf: no step count"),
    "a step that is none": (lambda all: moment(all)["step"].fill_(torch.nan), "is nan: no step"),
    "weights in another order": (
        lambda all: all["optimizer"]["param_groups"][1]["params"].reverse(),
        "optimizer.param_groups.1.params are others",
    ),
    "no groups": (lambda all: all["optimizer"]["param_groups"].clear(), "param_groups are not 3"),
    "groups in words": (lambda all: all["optimizer"].update(param_groups="x"), "param_groups are"),
    "a weight that is NaN": (
        lambda all: all["model"]["head.weight"][3].fill_(torch.nan),
        "model.token_embedding.weight has NaN or infinite values",  # to which the head is tied
    ),
    "an infinite average": (
        lambda all: all["average"]["module.norm.weight"].fill_(-torch.inf),
        "average.module.norm.weight has NaN or infinite values",
    ),
    "a scale of 0": (lambda all: all["scaler"].update(scale=0.0), "scaler.scale is 0.0"),
    "a scale that is NaN": (lambda all: all["scaler"].update(scale=torch.nan), "scaler.scale is"),
    "another growth": (lambda all: all["scaler"].update(growth_factor=9.0), "growth_factor is 9.0"),
    "a scale in words": (lambda all: all["scaler"].update(scale="x"), "scaler.scale is x"),
    "no scale": (lambda all: all["scaler"].clear(), "scaler.scale is missing"),
    "a count too large": (
        lambda all: all["scaler"].update(_growth_tracker=2**70),
        "scaler._growth_tracker is an integer of more than 64 bits",
    ),
    "a guard without losses": (lambda all: all["guard"].pop("recent"), "guard.recent is missing"),
    "a guard with NaN": (lambda all: all["guard"]["recent"].append(torch.nan), "guard.recent"),
    "negative skips": (lambda all: all["guard"].update(skipped=-1), "guard.skipped is -1"),
    "a guard's more": (lambda all: all["guard"].update(x=1), "guard.x is not part of the run"),
    "another step": (lambda all: all.update(step=4), "is not a checkpoint of step 3: it is of 4"),
    "too deep": (lambda all: all["settings"].update(x=deep(100)), "nested more than 16 deep"),
    "endless": (lambda all: all["progress"].update(x=endless()), "nested more than 16 deep"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_what_no_training_saves_is_refused_by_its_name(
    whole: Contents, tmp_path: Path, other: str
) -> None:
    contents = copy.deepcopy(whole)
    change, words = OTHERS[other]
    change(contents)
    refused(tmp_path, contents, words)


def test_options_are_those_of_the_configuration(whole: Contents, tmp_path: Path) -> None:
    contents = copy.deepcopy(whole)
    for group in contents["optimizer"]["param_groups"]:
        group.update(lr=50.0, peak_lr=50.0, betas=(0.0, 0.0), fused=False, maximize=True)
    forge(tmp_path, contents)
    found = resume(tmp_path, chosen()).trainer.state_dict()
    now = {key: whole[key] for key in found}
    assert {key.rpartition(".")[2] for key in differing_keys(now, found)} == {"lr"}


def test_loaded_tensors_are_their_own(whole: Contents, tmp_path: Path) -> None:
    """Whatever shared memory in the file, and lay there in another order, has memory of its own."""
    contents = copy.deepcopy(whole)
    pair = torch.stack([moment(contents)["exp_avg"].T, moment(contents)["exp_avg_sq"].T], dim=-1)
    moment(contents).update(exp_avg=pair[..., 0].T, exp_avg_sq=pair[..., 1].T)
    alias = contents["optimizer"]["state"][1]
    alias["max_exp_avg_sq"] = alias["exp_avg_sq"]
    whole = copy.deepcopy(contents)
    forge(tmp_path, contents)
    trainer = resume(tmp_path, chosen()).trainer
    tensors = [x for state in trainer._optimizer.state.values() for x in state.values()]
    tensors += [*trainer.model.parameters(), *trainer.evaluated.parameters()]
    assert all(tensor.is_contiguous() for tensor in tensors)
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == len(tensors)
    found = trainer.state_dict()
    differing = differing_keys({key: whole[key] for key in found}, found)
    assert {key.rpartition(".")[2] for key in differing} <= {"lr"}
