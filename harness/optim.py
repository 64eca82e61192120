"""Which parameters are decayed."""

from __future__ import annotations

from typing import Any

from torch import nn


def parameter_groups(model: nn.Module, weight_decay: float | None) -> list[dict[str, Any]]:
    """Two groups: weight matrices and convolution kernels, which are decayed, and the rest
    (embeddings and what is tied to them, norms, biases), which is not. Each parameter once.
    """
    embeddings = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters(recurse=False)
    }
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [p for p in trainable if p.dim() >= 2 and id(p) not in embeddings]
    chosen = {id(parameter) for parameter in decayed}
    rest = [parameter for parameter in trainable if id(parameter) not in chosen]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": rest}]
    if weight_decay is not None:
        groups[0]["weight_decay"] = weight_decay
        groups[1]["weight_decay"] = 0.0
    return [group for group in groups if group["params"]]
