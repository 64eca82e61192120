"""Which parameters are decayed, at which rate they learn, and Muon for the matrices."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from harness.common.errors import UsageError
from harness.common.values import describe, fits, nearest, show
from harness.compute.costs import Undrawn
from harness.config.build import Node, build_object, check_object
from harness.config.settings import Settings
from zoo.language_model import LanguageModel

Group = dict[str, Any]
# What is ours to check, because the optimizer's class does not take it, or need not.
RULES: dict[str, Any] = {
    "lr": float,
    "lr_of": dict[str, float] | None,
    "decay_embeddings": bool | None,
}
# Other modules may keep their weights the other way round, as transformers' Conv1D does.
ROWS_ARE_UNITS = (nn.Linear, nn.Conv1d, nn.RNNBase)


def build_optimizer(settings: Settings, model: nn.Module) -> torch.optim.Optimizer:
    """The configured optimizer over the model's parameter groups. Each group's `peak_lr` is the
    rate that the schedule's factor applies to."""
    return _build(settings, _groups(settings, model))


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
    groups = _groups(settings, model)
    _build(settings, [g | {"params": [torch.zeros(2, 2, requires_grad=True)]} for g in groups])


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
    with torch.device("meta"), Undrawn():
        model = settings.build("model", LanguageModel, vocab_size=256)
    _groups(settings, model)  # for what it refuses
    return rates_of_parts(settings, model)


def rates_of_parts(settings: Settings, model: nn.Module) -> dict[str, float]:
    """The peak rates that parameters learn at, by the part of the model that `optimizer.lr_of`
    gives one; all others' by "". A rate that no parameter has is left out."""
    node = settings.optimizer
    rates = {"": node["lr"]} | (node.get("lr_of") or {})
    held = {_part(name, rates) for name, p in model.named_parameters() if p.requires_grad}
    return {part: rate for part, rate in rates.items() if part in held}


def state_size(settings: Settings, model: nn.Module) -> int:
    """How many numbers the optimizer keeps for the model's parameters, learnt from one step on
    a small matrix in the place of each group; the model may be without data."""
    return sum(
        _state_per_parameter(settings, group) * sum(p.numel() for p in group["params"])
        for group in _groups(settings, model)
    )


def _state_per_parameter(settings: Settings, group: Group) -> int:
    small = torch.zeros(2, 2, requires_grad=True)
    small.grad = torch.zeros(2, 2)
    optimizer = _build(settings, [group | {"params": [small]}])
    optimizer.step()
    kept = tree_leaves(optimizer.state_dict())
    return sum(isinstance(each, torch.Tensor) and each.numel() == small.numel() for each in kept)


def _groups(settings: Settings, model: nn.Module) -> list[Group]:
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


def parameter_groups(
    model: nn.Module,
    lr: float,
    lr_of: dict[str, float],
    weight_decay: float,
    decay_embeddings: bool = False,
) -> list[Group]:
    """Every trainable parameter in exactly one group.

    Decayed are weight matrices and convolution kernels; embeddings, and what is tied to them, only
    if `decay_embeddings`; norms and biases never. `lr_of` gives parts of the model, by the start of
    their parameters' names, a rate of their own; of several that fit, the longest.
    Raises UsageError for a part that the model does not have.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    embedded = _embeddings(model)
    head = model.get_submodule("head") if hasattr(model, "head") else nn.Identity()
    output = {id(parameter) for parameter in head.parameters()}
    for part in lr_of:
        if not any(_lies_in(name, part) for name, _ in named):
            raise UsageError(f"optimizer.lr_of.{part}: {_why_no_part(model, part, named)}")
    groups: dict[tuple[Any, ...], Group] = {}
    for name, parameter in named:
        matrix = parameter.dim() >= 2
        decayed = matrix and (id(parameter) not in embedded or decay_embeddings)
        hidden = matrix and id(parameter) not in embedded | output
        rate = lr_of.get(_part(name, lr_of), lr)
        group = groups.setdefault(
            (rate, decayed, hidden),
            {
                "params": [],
                "lr": rate,
                "peak_lr": rate,
                "weight_decay": weight_decay if decayed else 0.0,
                "hidden": hidden,
            },
        )
        group["params"].append(parameter)
    return list(groups.values())


def matrices(model: nn.Module) -> list[nn.Parameter]:
    """Weight matrices and convolution kernels that are not embeddings; rows are units.

    Raises UsageError for weights of which that is not known.
    """
    embedded = _embeddings(model)
    found: dict[int, nn.Parameter] = {}  # a weight that is tied is there once
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.dim() < 2 or id(parameter) in embedded:
                continue
            if not isinstance(module, ROWS_ARE_UNITS):
                raise UsageError(
                    f"train.max_norm: {path}.{name} belongs to a {type(module).__name__}, which is "
                    "no linear map, convolution or recurrent layer: what comes into one of its "
                    "units is not known; leave train.max_norm=null"
                )
            found[id(parameter)] = parameter
    return list(found.values())


@torch.no_grad()
def limit_norms(weights: Iterable[nn.Parameter], limit: float) -> None:
    """Scale each unit's incoming weights down to at most this norm (Srivastava et al. 2014,
    "Dropout", section 5.1)."""
    for weight in weights:
        flat = weight.flatten(1)
        flat.copy_(flat.renorm(2, 0, limit))


class Muon(torch.optim.Optimizer):
    """Muon for the hidden layers' matrices, convolution kernels reshaped to (out, in · width), and
    AdamW for embeddings, norms and biases (Jordan et al. 2024, "Muon").

    Muon's updates are scaled to AdamW's size (Liu et al. 2025, arXiv 2502.16982, section 2.2), so
    that one learning rate serves both.
    """

    def __init__(
        self,
        params: list[Group],
        lr: float,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        hidden = [group for group in self.param_groups if group["hidden"]]
        rest = [group for group in self.param_groups if not group["hidden"]]
        self._flat = [(p, p.detach().flatten(1)) for group in hidden for p in group["params"]]
        flat = {id(parameter): matrix for parameter, matrix in self._flat}
        self.parts: list[torch.optim.Optimizer] = []
        if hidden:
            reshaped = [
                {**group, "params": [flat[id(p)] for p in group["params"]]} for group in hidden
            ]
            self.parts.append(
                torch.optim.Muon(
                    reshaped, lr, weight_decay, momentum, adjust_lr_fn="match_rms_adamw"
                )
            )
        if rest:
            copies = [dict(group) for group in rest]
            self.parts.append(
                torch.optim.AdamW(copies, lr, betas, weight_decay=weight_decay, fused=True)
            )
        self._outer = hidden + rest

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        for parameter, matrix in self._flat:
            matrix.grad = None if parameter.grad is None else parameter.grad.flatten(1)
        inner = [group for part in self.parts for group in part.param_groups]
        for group, own in zip(self._outer, inner, strict=True):
            own["lr"] = group["lr"]
        for part in self.parts:
            part.step()
        return None

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)


def _embeddings(model: nn.Module) -> set[int]:
    return {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters(recurse=False)
    }


def _why_no_part(model: nn.Module, part: str, named: list[tuple[str, nn.Parameter]]) -> str:
    """What to say of a part in which none of the named parameters lies."""
    owners = {id(parameter): name for name, parameter in named}
    for twin, parameter in model.named_parameters(remove_duplicate=False):
        if _lies_in(twin, part) and id(parameter) in owners:
            owner = owners[id(parameter)]
            return f"{twin} is tied to {owner}; its rate is that of {owner.rpartition('.')[0]}"
    parts = sorted({name.split(".")[0] for name, _ in named})
    return f"the model has no such part.{nearest(part, parts)} Parts: {', '.join(parts)}"


def _part(name: str, parts: Iterable[str]) -> str:
    """The longest of the parts that the parameter lies in; "" if it lies in none."""
    return max((part for part in parts if _lies_in(name, part)), key=len, default="")


def _lies_in(name: str, part: str) -> bool:
    return name == part or name.startswith(part + ".")
