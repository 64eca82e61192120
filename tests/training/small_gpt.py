"""A GPT so small that its gradients can be checked one by one."""

from __future__ import annotations

import torch

from zoo.gpt import GPT


def small_gpt(**options: bool) -> GPT:
    torch.manual_seed(0)
    return GPT(vocab_size=11, block_size=4, n_layer=1, n_head=2, n_embd=8, **options)
