"""Whether the hardware computes a model in a precision, found by trying it: which kernels are there
depends on the processor, the library and their settings, and some models need one that is not."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from harness.common.errors import UsageError
from harness.compute.device import Compute
from harness.config.settings import Settings
from zoo.language_model import LanguageModel


def require_precision(settings: Settings, compute: Compute) -> None:
    """Raises UsageError if the model of `settings` can't be trained and scored in this precision
    here. It is built for it and takes one step on 2 × 2 tokens: 15 to 70 ms for the zoo's models as
    they are configured. In fp32 nothing is tried.
    """
    if compute.precision == "fp32":
        return
    with _unheard(), compute.device:
        model = settings.build("model", LanguageModel, vocab_size=256)
    require_kernels(model.train(), compute, settings.names.model)


def require_kernels(model: LanguageModel, compute: Compute, name: str) -> None:
    """Raises UsageError if this very model can't compute in this precision here. One in training
    mode is trained and scored, which may change its state; any other is scored alone."""
    if compute.precision == "fp32" or not (failure := _failure(model, compute)):
        return
    if _failure(model, replace(compute, precision="fp32")):
        return  # whatever it is, another precision won't help
    raise UsageError(
        f"precision={compute.precision}: {compute.device} can't compute model={name} in it "
        f"({failure}); set precision=fp32"
    )


def _failure(model: LanguageModel, compute: Compute) -> str | None:
    time = min(2, model.block_size or 2)
    ids_BT = torch.zeros(2, time, dtype=torch.int64, device=compute.device)
    try:
        with _unheard():
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
def _unheard() -> Iterator[None]:
    """What is to be said of the model is said when it is trained, in the run's log."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
