"""A few steps outside the loop, to learn about a configuration before training it."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable

import torch
from torch import Tensor

from harness.config import Settings
from harness.data import Dataset
from harness.device import Compute
from harness.gradients import Gradients
from harness.loss import IGNORED, add_gradients
from harness.max_norm import limit_norms, limited_weights
from harness.optim import build_optimizer
from zoo.language_model import LanguageModel


def probe(
    settings: Settings,
    dataset: Dataset,
    compute: Compute,
    steps: Iterable[tuple[float, tuple[Tensor, Tensor]]],
) -> list[float]:
    """The loss (nats per trained token, as the loop logs it) before each step; a step is a factor
    on the peak rates, and a step's inputs and targets, (B, T) each, taken in micro-batches of
    `train.batch_size`. Ends early when a loss is not finite.

    A step is the loop's, with its positions, label smoothing, accumulation, clipping, scaler and
    max-norm; dropout's masks are others. What makes no difference to a step's loss is left out:
    `train.ema`, `compile`, evaluation. Batch normalization has its batch's statistics throughout.
    """
    plan = settings.train
    if plan.batch_norm == "frozen":
        print("train.batch_norm=frozen: no step here has frozen statistics", file=sys.stderr)
    torch.manual_seed(settings.seed)
    model = settings.build("model", LanguageModel, vocab_size=dataset.tokenizer.vocab_size)
    model.initialize(settings.init, settings.zero_residual).to(compute.device).train()
    optimizer = build_optimizer(settings, model)
    gradients = Gradients(model.parameters())
    limited = limited_weights(model) if plan.max_norm is not None else []
    scaler = torch.amp.GradScaler(compute.device.type, enabled=compute.precision == "fp16")
    losses = []
    for factor, (inputs_BT, targets_BT) in steps:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
        targets_BT = targets_BT[:, plan.trained]
        count = int((targets_BT != IGNORED).sum())
        weight = scaler.scale(torch.full((), 1 / count, device=compute.device))
        loss = torch.zeros((), device=compute.device)
        for start in range(0, len(inputs_BT), plan.batch_size):
            part = slice(start, start + plan.batch_size)
            with compute.autocast():
                features_BTC = model.features(inputs_BT[part].to(compute.device))
            loss += add_gradients(
                model,
                features_BTC[:, plan.trained],
                targets_BT[part].to(compute.device),
                compute,
                weight,
                plan.label_smoothing,
            )
        losses.append(loss.item() / count)
        if not math.isfinite(losses[-1]):
            break
        scaler.unscale_(optimizer)
        gradients.clip(plan.clip or math.inf)
        scaler.step(optimizer)
        scaler.update()
        if plan.max_norm is not None:
            limit_norms(limited, plan.max_norm)
        gradients.zero()
    return losses
