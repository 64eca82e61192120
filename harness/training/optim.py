"""The configured optimizer: checks, construction, state."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from harness.common.errors import UsageError
from harness.common.values import describe, fits, show
from harness.config.build import build_object, check_object
from harness.config.keys import Node
from harness.config.settings import Settings
from harness.training.optimizer_state import require_resumable
from harness.training.parameter_groups import Group, parameter_groups, part_of

# Keys that the optimizer's class does not check, or does not take.
OWN_KEYS: dict[str, Any] = {
    "lr": float,
    "lr_of": dict[str, float] | None,
    "decay_embeddings": bool | None,
}


def build_optimizer(settings: Settings, model: nn.Module) -> torch.optim.Optimizer:
    """The configured optimizer over the model's parameter groups. The schedule's factor multiplies
    each group's `peak_lr`."""
    return _build(settings, configured_groups(settings, model))


def check_arguments(settings: Settings) -> None:
    """Raises UsageError for a wrong optimizer class or argument, without building it, which loads
    torch's compiler."""
    check_object(_node(settings), torch.optim.Optimizer, "optimizer", settings.trust, params=[])
    node = settings.optimizer
    for name, hint in OWN_KEYS.items():
        if not fits(node.get(name), hint):
            raise UsageError(f"optimizer.{name}={show(node.get(name))} should be {describe(hint)}")
    rates = {"lr": node["lr"]}
    rates |= {f"lr_of.{part}": rate for part, rate in (node.get("lr_of") or {}).items()}
    for name, rate in rates.items():
        if not (rate >= 0 and math.isfinite(rate)):
            raise UsageError(f"optimizer.{name}={show(rate)} must be a finite number, at least 0")
    # Weights of moving averages in torch's and our classes; torch does not check all of them.
    if str(node["_target_"]).startswith(("torch.optim.", "harness.")):
        shares: dict[str, float] = {k: node[k] for k in ("momentum", "alpha") if k in node}
        shares |= {f"betas[{at}]": beta for at, beta in enumerate(node.get("betas") or ())}
        for name, share in shares.items():
            if not 0 <= share < 1:
                raise UsageError(f"optimizer.{name}={show(share)} must be at least 0 and below 1")
    if node.get("nesterov") and not node.get("momentum", 1.0):
        raise UsageError("optimizer.momentum=0: Nesterov's needs one; set optimizer.nesterov=false")


def check_optimizer(settings: Settings, model: nn.Module) -> None:
    """Raises UsageError for what `build_optimizer` would refuse, and for an optimizer that can't
    train this model or can't be resumed; the model may be on meta."""
    groups, target = configured_groups(settings, model), settings.optimizer["_target_"]
    require_resumable(
        lambda small: _build(settings, small), groups, _trial_device(settings),
        f"optimizer._target_={target}",
    )  # fmt: skip


def require_same_groups(saved: dict[str, Any], settings: Settings, model: nn.Module) -> None:
    """Raises UsageError if an optimizer's saved state is of a version of the code that grouped the
    model's parameters otherwise; the model may be on meta."""
    parts = saved.get("parts", [saved])
    try:
        count = sum(len(part["param_groups"]) for part in parts)
    except (KeyError, TypeError):
        return  # who loads it says what is wrong
    if count != (now := len(configured_groups(settings, model))):
        raise UsageError(
            f"{settings.run_dir or settings.fork_from} can't be gone on with: its optimizer has "
            f"{count} groups of parameters, now there are {now}: other settings, or an older "
            "version of the code, decayed other parameters"
        )


def peak_rates(settings: Settings, model: nn.Module) -> dict[str, float]:
    """The peak learning rate of each part of the model in `optimizer.lr_of`; of all other
    parameters under "". Parts without parameters are left out."""
    node = settings.optimizer
    rates = {"": node["lr"]} | (node.get("lr_of") or {})
    held = {part_of(name, rates) for name, p in model.named_parameters() if p.requires_grad}
    return {part: rate for part, rate in rates.items() if part in held}


def state_size(settings: Settings, model: nn.Module) -> int:
    """How many numbers the optimizer keeps for the model's parameters, found by one step on a small
    matrix for each group; the model may be on meta."""
    total = 0
    for group in configured_groups(settings, model):
        small = _small_weight(group).to(_trial_device(settings)).requires_grad_()
        small.grad = torch.zeros_like(small)
        optimizer = _build(settings, [group | {"params": [small], "maps": [()]}])
        optimizer.step()
        state = [x for x in tree_leaves(optimizer.state_dict()) if isinstance(x, torch.Tensor)]
        copies = sum(tensor.numel() == small.numel() for tensor in state)
        total += copies * sum(parameter.numel() for parameter in group["params"])
    return total


def _small_weight(group: Group) -> torch.Tensor:
    """A 2 × 2 matrix in place of the group's weights."""
    return torch.zeros((1,) * group["stack"] + (2, 2))


def _trial_device(settings: Settings) -> torch.device:
    """Where an optimizer is tried out. Only what can be captured into a CUDA graph needs a GPU;
    all others are tried before CUDA is started."""
    wanted = settings.optimizer.get("capturable") and settings.device != "cpu"
    return torch.device("cuda" if wanted and torch.cuda.is_available() else "cpu")


def configured_groups(settings: Settings, model: nn.Module) -> list[Group]:
    """The model's parameter groups. Raises UsageError for a part that it does not have."""
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
    """The optimizer class's own arguments."""
    rules = ("lr_of", "decay_embeddings")
    return {key: value for key, value in settings.optimizer.items() if key not in rules}
