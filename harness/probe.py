"""A few steps outside the loop, to learn about a configuration before training it."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from harness.config import Settings
from harness.data import Dataset
from harness.device import Compute
from harness.loss import add_gradients
from harness.optim import build_optimizer
from zoo.language_model import LanguageModel


def probe(
    settings: Settings,
    dataset: Dataset,
    compute: Compute,
    steps: Iterable[tuple[float, tuple[Tensor, Tensor]]],
) -> list[float]:
    """The loss (nats per token) before each step; a step is a factor on the learning rate, and a
    batch of inputs and targets, (B, T) each. Ends early when a loss is not finite."""
    torch.manual_seed(settings.seed)
    model = settings.build("model", LanguageModel, vocab_size=dataset.tokenizer.vocab_size)
    model.initialize(settings.init, settings.zero_residual).to(compute.device).train()
    optimizer = build_optimizer(settings, model)
    losses = []
    for factor, (inputs_BT, targets_BT) in steps:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
        count = targets_BT.numel()
        with compute.autocast():
            features_BTC = model.features(inputs_BT.to(compute.device))
        loss = add_gradients(
            model,
            features_BTC,
            targets_BT.to(compute.device),
            compute,
            torch.full((), 1 / count, device=compute.device),
        )
        losses.append(loss.item() / count)
        if not math.isfinite(losses[-1]):
            break
        nn.utils.clip_grad_norm_(model.parameters(), settings.train.clip or math.inf)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return losses
