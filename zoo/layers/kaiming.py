"""Kaiming's initialization (He et al. 2015, arXiv 1502.01852) of layers and of a head."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from torch import nn


def kaiming_(
    layers: Iterable[nn.Linear | nn.Conv1d],
    head: nn.Linear,
    nonlinearity: Literal["tanh", "relu", "leaky_relu"],
) -> None:
    """Normal, by fan in and what follows each layer; biases zero. The head has a tenth of it, so
    that the first loss is ln V."""
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, a=0.01, nonlinearity=nonlinearity)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    nn.init.normal_(head.weight, std=0.1 / head.in_features**0.5)
    nn.init.zeros_(head.bias)
