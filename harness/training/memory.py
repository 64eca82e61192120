"""Checks that a model fits into memory before anything is allocated: a system that lends more
memory than it has kills the process without a message."""

from __future__ import annotations

import torch

from harness.common.errors import UsageError
from harness.compute.costs import parameters
from harness.compute.memory import total_memory
from harness.compute.meta import meta_model
from harness.config.settings import Settings
from harness.training.optim import state_size


def require_memory(settings: Settings, vocab_size: int, device: torch.device) -> None:
    """Raises UsageError if weights, gradients, optimizer state and moving average, in fp32, exceed
    the device's memory."""
    model = meta_model(settings, vocab_size)
    count = parameters(model)["total"]
    copies = 2 if settings.train.ema is None else 3
    needed = 4 * (count * copies + state_size(settings, model))
    available = total_memory(device)
    if needed > available:
        raise UsageError(
            f"model={settings.names.model} has {count:,} parameters with {vocab_size:,} tokens: "
            f"its weights, gradients and optimizer state take {needed / 1e9:.1f} GB, and {device} "
            f"has {available / 1e9:.1f} GB; choose a smaller model, or a tokenizer with fewer "
            "tokens"
        )
