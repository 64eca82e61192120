"""The loss and its gradients, without the logits of a whole batch in memory.

B batch, T time, C channels, V vocabulary, N positions in one chunk.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.compute.device import Compute
from harness.data.batches import IGNORED
from harness.evaluation.nats import in_chunks, nats_N
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
    chunks = list(zip(*in_chunks(model, features_BTC, targets_BT), strict=True))
    several = len(chunks) > 1
    # In one piece: between the chunks' own large tensors small ones would leave holes in the heap.
    shape_NC = (features_BTC.shape[0] * features_BTC.shape[1], *features_BTC.shape[2:])
    gradient_NC = features_BTC.new_zeros(shape_NC) if several else None
    done = 0
    for chunk_NC, targets_N in chunks:
        # A single chunk is backpropagated through the whole model at once.
        leaf_NC = chunk_NC.detach().requires_grad_() if several else chunk_NC
        with compute.autocast():
            logits_NV = model.head(leaf_NC)
        nats = nats_N(logits_NV, targets_N, reduction="sum")
        objective = nats
        if label_smoothing:
            # The mean over the vocabulary of -ln p: the log-sum-exp minus the mean logit.
            logits_NV = logits_NV.float() if logits_NV.dtype.itemsize < 4 else logits_NV
            uniform_N = logits_NV.logsumexp(-1) - logits_NV.mean(-1)
            uniform = uniform_N.masked_fill(targets_N == IGNORED, 0).sum()
            objective = (1 - label_smoothing) * nats + label_smoothing * uniform
        if gradient_NC is not None:
            leaf_NC.grad = gradient_NC[done : done + len(leaf_NC)]
            done += len(leaf_NC)
            objective.backward(weight)
        else:
            torch.autograd.backward([objective, *others], [weight, *weights])
        total += nats.detach()
    if gradient_NC is not None:
        gradient_BTC = gradient_NC.view(features_BTC.shape)
        torch.autograd.backward([features_BTC, *others], [gradient_BTC, *weights])
    return total
