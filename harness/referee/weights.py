"""Weights for checks that ask what a model could see, not what it has learnt."""

from __future__ import annotations

import torch

from zoo.language_model import LanguageModel
from zoo.roles import OTHER, roles, unstacked


@torch.no_grad()
def randomize(model: LanguageModel, seed: int = 0) -> LanguageModel:
    """Weights of unit gain everywhere, so that no path is too faint, or zero, to be seen. Biases
    are moved around 1; other vectors (scales, decay rates) around what they begin with."""
    generator = torch.Generator().manual_seed(seed)
    known = roles(model)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        role = known[name]
        matrix = unstacked(parameter, role or OTHER)[0]
        fan_in = matrix[0].numel() if parameter.dim() > 1 else 4
        kept = 0.0 if parameter.dim() > 1 else 1.0 if role is None or role.bias else parameter
        parameter.copy_(noise / fan_in**0.5 + kept)
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return model


@torch.no_grad()
def fill_zeros(model: LanguageModel) -> LanguageModel:
    """Zero weights, which would hide the paths through them, become small random ones."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if not parameter.any():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.02 * noise)
    return model
