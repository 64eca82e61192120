"""Several linear maps of the same input, computed as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from zoo.roles import LINEAR, Role


class JointLinear(nn.Linear):
    """Maps whose weights lie one below the other, such as each head's queries, keys and values.

    heads: the outputs of each. What takes a matrix as a whole, as Muon does, may take each of them.
    """

    parameter_roles: dict[str, Role]

    def __init__(self, in_features: int, heads: Sequence[int], bias: bool = True) -> None:
        super().__init__(in_features, sum(heads), bias=bias)
        self.parameter_roles = {"weight": replace(LINEAR, heads=tuple(heads))}
