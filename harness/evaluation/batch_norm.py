"""The statistics of batch normalization (Wu & Johnson 2021, "Rethinking 'Batch' in BatchNorm",
arXiv 2105.07576).

moving   the moving average of training (the default)
precise  recomputed from `samples` positions before each evaluation (section 3)
frozen   precise ones, frozen for the last share of the training (section 4)
batch    those of the batch, in evaluation, too (section 3.3): a token's score then depends on
         later tokens, so such a run is marked as not causal
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from harness.common.errors import UsageError
from harness.compute.modes import eval_mode
from harness.data.batches import IGNORED
from zoo.language_model import LanguageModel


def layers(model: nn.Module) -> list[_BatchNorm]:
    """The model's batch normalization layers."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


def require_layers(model: nn.Module, mode: str) -> None:
    """Raises UsageError for a mode other than "moving" if the model has no batch normalization."""
    if mode != "moving" and not layers(model):
        raise UsageError(f"train.batch_norm={mode}: the model has no batch normalization")


def can_leave_out_padding(norms: list[_BatchNorm]) -> bool:
    """Whether `counting` works for these layers; it does for those of the zoo."""
    return all(hasattr(norm, "is_text") for norm in norms)


def counting(norms: list[_BatchNorm], targets_BT: Tensor) -> AbstractContextManager[None]:
    """Inside, statistics of a batch with these targets leave its padding out."""
    is_text_BT = targets_BT != IGNORED
    return nullcontext() if not norms or is_text_BT.all() else _counting(norms, is_text_BT)


@contextmanager
def _counting(norms: list[Any], is_text_BT: Tensor) -> Iterator[None]:
    for norm in norms:
        norm.is_text = is_text_BT.to(norm.weight.device)
    try:
        yield
    finally:
        for norm in norms:
            norm.is_text = None


def require_values(model: nn.Module, batch_size: int, seq_len: int) -> None:
    """Raises UsageError for batch normalization over one position, which has no variance."""
    if batch_size * seq_len == 1 and layers(model):
        raise UsageError(
            "train.batch_size=1 with train.seq_len=1: batch normalization needs more than one "
            "position; raise one of them"
        )


@torch.no_grad()
def recompute(model: LanguageModel, batches: Iterable[tuple[Tensor, Tensor]], samples: int) -> None:
    """Set every layer's population statistics from at least `samples` positions of `batches`,
    inputs and targets, (B, T) each: the mean E[μ_B] and, by the law of total variance,
    E[σ_B² + μ_B²] - E[μ_B]², each batch by its positions. Padding is left out. The
    model runs in evaluation mode and is left in the mode it was in. If `batches` raises, the
    statistics stay as they were."""
    norms = layers(model)
    sums = [tuple(torch.zeros_like(part) for part in _population(norm)) for norm in norms]
    seen, first, total = 0, dict[nn.Module, int](), dict[nn.Module, float]()
    with eval_mode(model), _batch_statistics(model, keep=True), _restoring(norms):
        for inputs_BT, targets_BT in batches:
            padding = int((targets_BT == IGNORED).sum())
            with counting(norms, targets_BT), _sizes(norms) as sizes:
                model(inputs_BT, return_features=True)
            for norm, (mean_C, square_C) in zip(norms, sums, strict=True):
                batch_mean_C, batch_variance_C = _population(norm)
                size = sizes.get(norm, inputs_BT.numel()) - padding  # a layer may be left out
                weight = size / first.setdefault(norm, size)
                mean_C += weight * batch_mean_C
                square_C += weight * (_biased(batch_variance_C, size) + batch_mean_C**2)
                total[norm] = total.get(norm, 0.0) + weight
            seen += inputs_BT.numel() - padding
            if seen >= samples:
                break
    for norm, (mean_C, square_C) in zip(norms, sums, strict=True):
        norm.running_mean = mean_C / total[norm]
        norm.running_var = square_C / total[norm] - (mean_C / total[norm]) ** 2


@contextmanager
def _sizes(norms: list[_BatchNorm]) -> Iterator[dict[nn.Module, int]]:
    """The positions that each layer is given, padding included: a layer may see some before the
    text."""
    sizes: dict[nn.Module, int] = {}

    def note(norm: nn.Module, given: tuple[Tensor, ...]) -> None:
        sizes[norm] = given[0].numel() // cast(_BatchNorm, norm).num_features

    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    try:
        yield sizes
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _restoring(norms: list[_BatchNorm]) -> Iterator[None]:
    """If the block raises, the population statistics are again what they were."""
    before = [tuple(part.clone() for part in _population(norm)) for norm in norms]
    try:
        yield
    except BaseException:
        for norm, parts in zip(norms, before, strict=True):
            for now, was in zip(_population(norm), parts, strict=True):
                now.copy_(was)
        raise


@contextmanager
def batch_statistics(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Inside, if wanted, a model in evaluation mode normalizes by the batch's statistics; its
    population statistics stay as they are."""
    with _batch_statistics(model, keep=False) if wanted else nullcontext():
        yield


@contextmanager
def _batch_statistics(model: nn.Module, keep: bool) -> Iterator[None]:
    """keep: leave the last batch's statistics in running_mean and running_var."""
    norms = layers(model)
    momenta = [norm.momentum for norm in norms]
    counts = [int(norm.num_batches_tracked or 0) for norm in norms]
    model.eval()
    for norm in norms:
        norm.train()
        norm.momentum = 1.0 if keep else 0.0
    try:
        yield
    finally:
        for norm, momentum, count in zip(norms, momenta, counts, strict=True):
            norm.eval()
            norm.momentum = momentum
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.fill_(count)


def _population(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None, "a batch normalization without running statistics"
    assert norm.running_var is not None, "a batch normalization without running statistics"
    return norm.running_mean, norm.running_var


def _biased(variance_C: Tensor, count: int) -> Tensor:
    """torch keeps the unbiased variance of each channel's `count` values."""
    return variance_C * (count - 1) / count


def freeze(model: nn.Module) -> None:
    """Normalize by the population statistics in training, too."""
    for norm in layers(model):
        norm.eval()


@torch.no_grad()
def copy_statistics(source: nn.Module, target: nn.Module) -> None:
    """Copy the population statistics of the source's layers to the target's."""
    for theirs, ours in zip(layers(source), layers(target), strict=True):
        for new, old in zip(_population(theirs), _population(ours), strict=True):
            old.copy_(new)
