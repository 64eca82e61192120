"""The configured optimizer: what is wrong with it, building it, its state."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from harness.common.errors import UsageError
from harness.common.values import describe, fits, show
from harness.compute.costs import NoInitialization
from harness.config.build import build_object, check_object
from harness.config.keys import Node
from harness.config.settings import Settings
from harness.training.muon import Muon
from harness.training.parameter_groups import Group, parameter_groups, part_of
from zoo.language_model import LanguageModel

# What is ours to check, because the optimizer's class does not take it, or need not.
RULES: dict[str, Any] = {
    "lr": float,
    "lr_of": dict[str, float] | None,
    "decay_embeddings": bool | None,
}


def build_optimizer(settings: Settings, model: nn.Module) -> torch.optim.Optimizer:
    """The configured optimizer over the model's parameter groups. Each group's `peak_lr` is the
    rate that the schedule's factor applies to."""
    return _build(settings, groups_of(settings, model))


def check_arguments(settings: Settings) -> None:
    """Raises UsageError for an optimizer that is none, or a setting it does not have. At once:
    building one loads torch's compiler."""
    check_object(_node(settings), torch.optim.Optimizer, "optimizer", settings.trust, params=[])
    for name, hint in RULES.items():
        value = settings.optimizer.get(name)
        if not fits(value, hint):
            raise UsageError(f"optimizer.{name}={show(value)} should be {describe(hint)}")
    _check_ranges(settings.optimizer)


def _check_ranges(node: Node) -> None:
    """torch looks at the default rate alone, and not at every average's weight."""
    rates = {"lr": node["lr"]}
    rates |= {f"lr_of.{part}": rate for part, rate in (node.get("lr_of") or {}).items()}
    for name, rate in rates.items():
        if not (rate >= 0 and math.isfinite(rate)):
            raise UsageError(f"optimizer.{name}={show(rate)} must be a finite number, at least 0")
    if str(node["_target_"]).startswith(("torch.optim.", "harness.")):  # to others they may be else
        shares: dict[str, float] = {k: node[k] for k in ("momentum", "alpha") if k in node}
        shares |= {f"betas[{at}]": beta for at, beta in enumerate(node.get("betas") or ())}
        for name, share in shares.items():
            if not 0 <= share < 1:
                raise UsageError(f"optimizer.{name}={show(share)} must be at least 0 and below 1")
    if node.get("nesterov") and not node.get("momentum", 1.0):
        raise UsageError("optimizer.momentum=0: Nesterov's needs one; set optimizer.nesterov=false")


def check_optimizer(settings: Settings, model: nn.Module) -> None:
    """Raises UsageError for what `build_optimizer` would refuse; the model may be without data."""
    groups = groups_of(settings, model)
    _build(settings, [group | {"params": [_small(group)]} for group in groups])


def restore(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Give the optimizer what it knew of each parameter, from a checkpoint; rates, decay and all
    else stay those of the configuration. Raises ValueError for what has not the shape of its
    parameter: fused kernels trust it."""
    own, parts = optimizer.state_dict(), [optimizer]
    mine, theirs = [own], [saved]
    if isinstance(optimizer, Muon):
        parts, mine, theirs = optimizer.parts, own["parts"], saved["parts"]
    for part, kept, given in zip(parts, mine, theirs, strict=True):
        part.load_state_dict({"state": given["state"], "param_groups": kept["param_groups"]})
        for parameter, state in part.state.items():
            for name, value in state.items():
                wanted = () if name == "step" else parameter.shape
                if isinstance(value, torch.Tensor) and value.shape != wanted:
                    raise ValueError(f"{name} of {tuple(value.shape)} for {tuple(parameter.shape)}")


def planned_rates(settings: Settings) -> dict[str, float]:
    """The `rates_of_parts` of a model that need not be there yet."""
    with torch.device("meta"), NoInitialization():
        model = settings.build("model", LanguageModel, vocab_size=256)
    groups_of(settings, model)  # for what it refuses
    return rates_of_parts(settings, model)


def rates_of_parts(settings: Settings, model: nn.Module) -> dict[str, float]:
    """The peak rates that parameters learn at, by the part of the model that `optimizer.lr_of`
    gives one; all others' by "". A rate that no parameter has is left out."""
    node = settings.optimizer
    rates = {"": node["lr"]} | (node.get("lr_of") or {})
    held = {part_of(name, rates) for name, p in model.named_parameters() if p.requires_grad}
    return {part: rate for part, rate in rates.items() if part in held}


def state_size(settings: Settings, model: nn.Module) -> int:
    """How many numbers the optimizer keeps for the model's parameters, learnt from one step on
    a small matrix in the place of each group; the model may be without data."""
    return sum(
        _state_per_parameter(settings, group) * sum(p.numel() for p in group["params"])
        for group in groups_of(settings, model)
    )


def _state_per_parameter(settings: Settings, group: Group) -> int:
    small = _small(group)
    small.grad = torch.zeros_like(small)
    optimizer = _build(settings, [group | {"params": [small]}])
    optimizer.step()
    kept = tree_leaves(optimizer.state_dict())
    return sum(isinstance(each, torch.Tensor) and each.numel() == small.numel() for each in kept)


def _small(group: Group) -> torch.Tensor:
    """A weight of 2 × 2 in the place of the group's."""
    return torch.zeros((1,) * group["stack"] + (2, 2), requires_grad=True)


def groups_of(settings: Settings, model: nn.Module) -> list[Group]:
    """The model's parameters in groups, by the configuration's rules."""
    node = settings.optimizer
    return parameter_groups(
        model,
        lr=node["lr"],
        lr_of=node.get("lr_of") or {},
        weight_decay=node.get("weight_decay", 0.0),
        decay_embeddings=node.get("decay_embeddings", False),
    )


def _build(settings: Settings, groups: list[Group]) -> torch.optim.Optimizer:
    return build_object(
        _node(settings), torch.optim.Optimizer, "optimizer", settings.trust, params=groups
    )


def _node(settings: Settings) -> Node:
    """What the optimizer's own class takes: the rules for the groups are not for it."""
    rules = ("lr_of", "decay_embeddings")
    return {key: value for key, value in settings.optimizer.items() if key not in rules}
