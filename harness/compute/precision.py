"""Whether the hardware can compute a model in a precision. It is tried out: which kernels exist
depends on the processor, the library and their settings."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from harness.common.errors import UsageError
from harness.compute.device import Compute
from harness.config.model import build_model
from harness.config.settings import Settings
from zoo.language_model import LanguageModel


def require_precision(settings: Settings, compute: Compute) -> None:
    """Raises UsageError if the model of `settings` can't be trained and evaluated in this precision
    here. The model is built and takes one step on 2 × 2 tokens, 15 to 70 ms for the zoo's models.
    fp32 is not tried.
    """
    if compute.precision == "fp32":
        return
    with _silence(), compute.device:
        model = build_model(settings, 256)
    require_kernels(model.train(), compute, settings.names.model)


def require_kernels(model: LanguageModel, compute: Compute, name: str) -> None:
    """Raises UsageError if this model can't compute in this precision here. In training mode a
    backward pass is tried too, which may change the model's state."""
    if compute.precision == "fp32" or not (failure := _failure(model, compute)):
        return
    if _failure(model, replace(compute, precision="fp32")):
        return  # precision is not the cause
    raise UsageError(
        f"precision={compute.precision}: {compute.device} can't compute model={name} in it "
        f"({failure}); set precision=fp32"
    )


def _failure(model: LanguageModel, compute: Compute) -> str | None:
    time = min(2, model.block_size or 2)
    ids_BT = torch.zeros(2, time, dtype=torch.int64, device=compute.device)
    try:
        with _silence():
            if model.training:
                with compute.autocast():
                    logits_BTV = model(ids_BT)
                logits_BTV.float().sum().backward()
                model.eval()
            with torch.inference_mode(), compute.autocast():
                model(ids_BT)
                model(ids_BT[:, :1], model.init_cache(2))
    except RuntimeError as error:
        return str(error).partition("\n")[0].partition(". ")[0]
    return None


@contextmanager
def _silence() -> Iterator[None]:
    """Without warnings: training gives them in the run's log."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
