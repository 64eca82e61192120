"""Max-norm regularization: a bound on the norm of each unit's incoming weights (Srivastava et al.
2014, "Dropout", section 5.1)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from harness.common.errors import UsageError
from zoo.roles import Role, roles, unstacked


def max_norm_weights(model: nn.Module) -> list[tuple[nn.Parameter, Role]]:
    """The weights of linear maps, convolutions and recurrent layers that are not embeddings.

    Raises UsageError for a weight whose input axes are unknown.
    """
    found, parameters = [], dict(model.named_parameters())
    for name, role in roles(model).items():
        if role is None:
            raise UsageError(
                f"train.max_norm: the input axes of {name} are not known; mark its axes "
                "(zoo/roles.py), or leave train.max_norm=null"
            )
        if role.matrix and not role.embedding:
            found.append((parameters[name], role))
    return found


@torch.no_grad()
def apply_max_norm(weights: Iterable[tuple[nn.Parameter, Role]], limit: float) -> None:
    """Scale each unit's incoming weights down to a norm of at most `limit`."""
    for weight, role in weights:
        units = role.matrix[0] - role.stack(weight)
        for matrix in unstacked(weight, role):
            matrix.renorm_(2, units, limit)
