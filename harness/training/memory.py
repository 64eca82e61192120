"""Whether a model fits into memory, asked before anything of it is allocated: where a system lends
more memory than it has, the process is killed without a word."""

from __future__ import annotations

import torch

from harness.common.errors import UsageError
from harness.compute.costs import NoInitialization, parameters
from harness.compute.memory import total_memory
from harness.config.settings import Settings
from harness.training.optim import state_size
from zoo.language_model import LanguageModel


def require_room(settings: Settings, vocab_size: int, device: torch.device) -> None:
    """Raises UsageError if weights, gradients, the optimizer's state and the moving average alone,
    in fp32, are more than the device's whole memory."""
    with torch.device("meta"), NoInitialization():
        model = settings.build("model", LanguageModel, vocab_size=vocab_size)
    count = parameters(model)["total"]
    numbers = count * (2 if settings.train.ema is None else 3) + state_size(settings, model)
    needed, there = 4 * numbers, total_memory(device)
    if needed > there:
        raise UsageError(
            f"model={settings.names.model} has {count:,} parameters with {vocab_size:,} tokens: "
            f"its weights, gradients and optimizer state take {needed / 1e9:.1f} GB, and {device} "
            f"has {there / 1e9:.1f} GB; choose a smaller model, or a tokenizer of fewer tokens"
        )
