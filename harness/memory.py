"""Whether a model fits into memory, asked before anything of it is allocated: where a system lends
more memory than it has, the process is killed without a word."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from harness.config import Settings
from harness.errors import UsageError
from harness.measure import Undrawn, parameters
from harness.optim import state_size
from zoo.language_model import LanguageModel

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def require_room(settings: Settings, vocab_size: int, device: torch.device) -> None:
    """Raises UsageError if weights, gradients, the optimizer's state and the moving average alone,
    in fp32, are more than the device's whole memory."""
    with torch.device("meta"), Undrawn():
        model = settings.build("model", LanguageModel, vocab_size=vocab_size)
    count = parameters(model)["total"]
    numbers = count * (2 if settings.train.ema is None else 3) + state_size(settings, model)
    needed, there = 4 * numbers, total(device)
    if needed > there:
        raise UsageError(
            f"model={settings.names.model} has {count:,} parameters with {vocab_size:,} tokens: "
            f"its weights, gradients and optimizer state take {needed / 1e9:.1f} GB, and {device} "
            f"has {there / 1e9:.1f} GB; choose a smaller model, or a tokenizer of fewer tokens"
        )


def total(device: torch.device) -> int:
    """The device's memory in bytes; of the CPU's, what this process may have (Linux's cgroups)."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in map(Path, _LIMITS):
        if path.exists() and (text := path.read_text().strip()).isdigit():
            limits.append(int(text))
    return min(limits)
