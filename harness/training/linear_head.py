"""The gradients of the loss behind a linear head, by their closed form, in the logits' own memory.

What autograd would hold beside the logits of a chunk, their logarithms, three gradients and the
head's gradient once more, is as large as the logits several times over. Known as the fused linear
cross-entropy (Hsu et al. 2024, "Liger Kernel", arXiv 2410.10989).

C channels, V vocabulary, N positions in one chunk.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from harness.compute.device import Compute
from harness.data.batches import IGNORED


@torch.no_grad()
def add_linear_gradients(
    head: nn.Linear,
    chunks: Iterable[tuple[Tensor, Tensor, Tensor]],
    compute: Compute,
    weight: Tensor,
    label_smoothing: float,
) -> Tensor:
    """Add to the head's parameters the gradient of the sum of nats times `weight`, (); returns the
    sum, (). label_smoothing as in `harness.training.loss.add_gradients`.

    chunks: features (N, C), targets (N,), and the features' gradients (N, C), which are added to.
    """
    total = torch.zeros((), device=weight.device)
    with compute.autocast():  # around all: the head's weight is rounded once
        for features_NC, targets_N, gradient_NC in chunks:
            logits_NV = head(features_NC)
            total += _to_gradients(logits_NV, targets_N, weight, label_smoothing)
            gradient_NC += logits_NV @ head.weight
            if head.weight.requires_grad:
                _add_product(_gradient(head.weight), logits_NV.t(), features_NC)
            if head.bias is not None and head.bias.requires_grad:
                _gradient(head.bias).add_(logits_NV.sum(0))
    return total


def _to_gradients(
    logits_NV: Tensor, targets_N: Tensor, weight: Tensor, label_smoothing: float
) -> Tensor:
    """Replace logits by the gradients of their nats times `weight`, in at least fp32 until they are
    stored; returns the sum of nats, ()."""
    wide_NV = logits_NV.float() if logits_NV.dtype.itemsize < 4 else logits_NV
    counts_N1 = (targets_N != IGNORED)[:, None]
    targets_N1 = torch.where(counts_N1, targets_N[:, None], 0)
    own_N1 = wide_NV.gather(1, targets_N1)
    largest_N1 = wide_NV.amax(1, keepdim=True)
    torch.softmax(wide_NV, 1, out=wide_NV)
    # The largest probability, at least 1 / V, tells the log-sum-exp; the target's may be zero.
    nats_N1 = largest_N1 - wide_NV.amax(1, keepdim=True).log() - own_N1
    weight_N1 = weight * counts_N1
    wide_NV *= weight_N1
    if label_smoothing:
        wide_NV -= weight_N1 * (label_smoothing / wide_NV.shape[1])
    wide_NV.scatter_add_(1, targets_N1, weight_N1 * (label_smoothing - 1))
    if wide_NV is not logits_NV:
        logits_NV.copy_(wide_NV)
    return torch.where(counts_N1, nats_N1, 0).sum()


def _add_product(total_VC: Tensor, a_VN: Tensor, b_NC: Tensor) -> None:
    if total_VC.dtype == a_VN.dtype == b_NC.dtype:
        total_VC.addmm_(a_VN, b_NC)  # without a product as large as the weight
    else:
        total_VC += a_VN @ b_NC


def _gradient(parameter: Tensor) -> Tensor:
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad
