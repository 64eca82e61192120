"""Parameter groups: weight decay, learning rate and Muon, by a parameter's role (zoo.roles)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from torch import nn

from harness.common.errors import UsageError
from harness.common.values import did_you_mean
from zoo.roles import OTHER, roles

Group = dict[str, Any]


def parameter_groups(
    model: nn.Module,
    lr: float,
    lr_of: dict[str, float],
    weight_decay: float,
    decay_embeddings: bool = False,
) -> list[Group]:
    """Every trainable parameter in exactly one group.

    Decayed: weights of linear maps and convolutions, and parameters marked so; that of the head,
    tied to an embedding or not; other embeddings only if `decay_embeddings`; norms, biases and
    unmarked parameters never.
    hidden: matrices between embeddings and output, stacked along their first `stack` axes.
    maps: of each parameter, see zoo.roles.Role; (): one map.
    lr_of: learning rates of parts of the model, by parameter name prefix; the longest wins.
    Raises UsageError for a part that the model does not have.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    for part in lr_of:
        if not any(_is_in(name, part) for name, _ in named):
            raise UsageError(f"optimizer.lr_of.{part}: {_why_no_part(model, part, named)}")
    known = roles(model)
    groups: dict[tuple[Any, ...], Group] = {}
    for name, parameter in named:
        role = known[name] or OTHER
        decayed = decay_embeddings or role.output if role.embedding else role.decay
        hidden = bool(role.matrix) and not (role.embedding or role.output)
        stack = role.stack(parameter) if hidden else 0
        rate = lr_of.get(part_of(name, lr_of), lr)
        group = groups.setdefault(
            (rate, decayed, hidden, stack),
            {
                "params": [],
                "lr": rate,
                "peak_lr": rate,
                "weight_decay": weight_decay if decayed else 0.0,
                "hidden": hidden,
                "stack": stack,
                "maps": [],
            },
        )
        group["params"].append(parameter)
        group["maps"].append(role.maps if hidden else ())
    return list(groups.values())


def unmarked_line(model: nn.Module) -> str | None:
    """A line naming the parameters whose role is unknown, or None."""
    names = group_by_pattern(name for name, role in roles(model).items() if role is None)
    if not names:
        return None
    listed = ", ".join(
        f"{name} ({len(each)})" if len(each) > 1 else name for name, each in names.items()
    )
    count = sum(map(len, names.values()))
    return f"{count} unmarked parameters, not decayed nor orthogonalized (zoo/roles.py): {listed}"


def group_by_pattern(names: Iterable[str]) -> dict[str, list[str]]:
    """Names grouped by what they are with * for layer numbers."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(re.sub(r"(?<![^.])\d+(?![^.])", "*", name), []).append(name)
    return found


def _why_no_part(model: nn.Module, part: str, named: list[tuple[str, nn.Parameter]]) -> str:
    """The error message for a part without parameters."""
    owners = {id(parameter): name for name, parameter in named}
    for twin, parameter in model.named_parameters(remove_duplicate=False):
        if _is_in(twin, part) and id(parameter) in owners:
            owner = owners[id(parameter)]
            return f"{twin} is tied to {owner}; its rate is that of {owner.rpartition('.')[0]}"
    parts = sorted({name.split(".")[0] for name, _ in named})
    return f"the model has no such part.{did_you_mean(part, parts)} Parts: {', '.join(parts)}"


def part_of(name: str, parts: Iterable[str]) -> str:
    """The longest of `parts` that contains the parameter, or ""."""
    return max((part for part in parts if _is_in(name, part)), key=len, default="")


def _is_in(name: str, part: str) -> bool:
    return name == part or name.startswith(part + ".")
