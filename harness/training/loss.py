"""The loss and its gradients, without the logits of a whole batch in memory.

B batch, T time, C channels, V vocabulary, N positions in one chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

import torch
from torch import Tensor, nn

from harness.compute.device import Compute
from harness.data.batches import IGNORED
from harness.evaluation.nats import in_chunks, nats_N
from harness.training.linear_head import add_linear_gradients
from zoo.language_model import LanguageModel


def add_gradients(
    model: LanguageModel,
    features_BTC: Tensor,
    targets_BT: Tensor,
    compute: Compute,
    weight: Tensor,
    label_smoothing: float = 0.0,
    auxiliary: Sequence[tuple[Tensor, Tensor]] = (),
) -> Tensor:
    """Add to every parameter the gradient of the sum of nats times `weight`, (); returns the sum.
    auxiliary: further losses, (), each with its own weight, whose gradients are added.

    label_smoothing: the share of probability spread evenly over the vocabulary (Szegedy et al.
    2016, section 7), in the gradient alone. Each chunk is backpropagated through the head by
    itself, then the features' gradients through the rest of the model at once.
    """
    total = torch.zeros((), device=features_BTC.device)
    others, weights = [loss for loss, _ in auxiliary], [each for _, each in auxiliary]
    features, targets = in_chunks(model, features_BTC, targets_BT)
    if len(targets) == 1:  # through the whole model at once
        nats, objective = _loss(model, features[0], targets[0], compute, label_smoothing)
        torch.autograd.backward([objective, *others], [weight, *weights])
        return total + nats
    # In one piece: between the chunks' own large tensors small ones would leave holes in the heap.
    shape_NC = (features_BTC.shape[0] * features_BTC.shape[1], *features_BTC.shape[2:])
    gradients_NC = features_BTC.new_zeros(shape_NC)
    leaves = [chunk_NC.detach() for chunk_NC in features]
    chunks = zip(leaves, targets, gradients_NC.split(len(targets[0])), strict=True)
    if _is_plain(model.head):
        total += add_linear_gradients(model.head, chunks, compute, weight, label_smoothing)
    else:
        for leaf_NC, targets_N, gradient_NC in chunks:
            leaf_NC.requires_grad_().grad = gradient_NC
            nats, objective = _loss(model, leaf_NC, targets_N, compute, label_smoothing)
            objective.backward(weight)
            total += nats
    gradient_BTC = gradients_NC.view(features_BTC.shape)
    torch.autograd.backward([features_BTC, *others], [gradient_BTC, *weights])
    return total


def _is_plain(head: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether its logits are its weight's products and its bias, and both are its parameters: not
    with hooks, by which weight norm too was made (torch.nn.utils.weight_norm)."""
    hooked = head._forward_hooks or head._forward_pre_hooks or head._backward_hooks
    return type(head) is nn.Linear and "weight" in head._parameters and not hooked


def _loss(
    model: LanguageModel,
    features_NC: Tensor,
    targets_N: Tensor,
    compute: Compute,
    label_smoothing: float,
) -> tuple[Tensor, Tensor]:
    """The sum of nats, (), and what is minimized, ()."""
    with compute.autocast():
        logits_NV = model.head(features_NC)
    nats = objective = nats_N(logits_NV, targets_N, reduction="sum")
    if label_smoothing:
        # The mean over the vocabulary of -ln p: the log-sum-exp minus the mean logit.
        logits_NV = logits_NV.float() if logits_NV.dtype.itemsize < 4 else logits_NV
        uniform_N = logits_NV.logsumexp(-1) - logits_NV.mean(-1)
        uniform = uniform_N.masked_fill(targets_N == IGNORED, 0).sum()
        objective = (1 - label_smoothing) * nats + label_smoothing * uniform
    return nats.detach(), objective
