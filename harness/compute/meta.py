"""A model without weights, to ask what its configuration means, and how large it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules import module as registration

from harness.common import contained
from harness.common.errors import UsageError
from harness.compute.costs import NoInitialization
from harness.compute.memory import total_memory
from harness.config.model import build_model
from harness.config.settings import Settings
from zoo.language_model import LanguageModel

MOST_MODULES = 1 << 16


def meta_model(
    settings: Settings, vocab_size: int = 256, *, initialized: bool = False
) -> LanguageModel:
    """The configured model on the meta device: shapes without memory. initialized: by the
    settings' scheme, too.

    A model that looks at values as it is made can't be made there: it is made on the CPU. Raises
    UsageError, before it is complete, for a model that would not fit into the memory.
    """

    def build() -> LanguageModel:
        model = build_model(settings, vocab_size)
        return model.initialize(settings.init, settings.zero_residual) if initialized else model

    try:
        with torch.device("meta"), NoInitialization(), _counting(settings):
            return build()
    except (UsageError, ValueError):
        raise
    except RuntimeError as error:
        if "overflow" in str(error):
            raise UsageError(f"model: too large for any memory ({error})") from error
    except Exception:  # numpy's for example; a fault of the model itself is raised again below
        pass
    with torch.random.fork_rng([]), _counting(settings):
        return build()


@contextmanager
def _counting(settings: Settings) -> Iterator[None]:
    """Adds up the weights and the modules that are made inside."""
    name = settings.names.model
    available = total_memory(torch.device("cpu"))
    modules, most = 0, int(MOST_MODULES * contained.factor())
    tensors: dict[int, Tensor] = {}  # shared ones count once
    size = 0

    def count_tensor(module: Any, name_in_module: str, tensor: Tensor | None) -> None:
        nonlocal size
        if tensor is None or id(tensor) in tensors:
            return
        tensors[id(tensor)] = tensor
        size += tensor.numel() * tensor.element_size()
        if size > available:
            raise UsageError(
                f"model={name} has weights of more than {available / 1e9:.1f} GB, all the memory "
                "that there is; choose a smaller model, or one for a shorter "
                f"train.seq_len={settings.train.seq_len}"
            )

    def count_module(module: Any, name_in_module: str, child: Any) -> None:
        nonlocal modules
        modules += 1
        if modules > most:
            raise UsageError(
                f"model={name} has more than {most:,} modules; if you trust it, multiply all "
                f"limits: {contained.FACTOR}=10"
            )

    hooks = (
        registration.register_module_parameter_registration_hook(count_tensor),
        registration.register_module_buffer_registration_hook(count_tensor),
        registration.register_module_module_registration_hook(count_module),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
