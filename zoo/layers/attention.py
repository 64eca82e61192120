"""Causal self-attention (Vaswani et al. 2017, arXiv 1706.03762, section 3.2) with an explicit past.

B batch, T time (queries), S keys past and present, C channels, H heads, D channels of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.language_model import Cache


@dataclass
class KeyValues:
    """One layer's keys and values: buffers (B, H, block_size, D), filled up to `pos`."""

    keys: Tensor
    values: Tensor
    pos: int

    @classmethod
    def of(cls, cache: Cache | None, layer: int, pos: int) -> KeyValues | None:
        if cache is None:
            return None
        return cls(cache.tensors[f"{layer}.keys"], cache.tensors[f"{layer}.values"], pos)

    @staticmethod
    def empty(n_layer: int, shape: tuple[int, int, int, int], like: Tensor) -> dict[str, Tensor]:
        """Buffers of shape (B, H, block_size, D) for every layer, by the names `of` looks up."""
        return {
            f"{layer}.{kind}": like.new_zeros(shape)
            for layer in range(n_layer)
            for kind in ("keys", "values")
        }

    def extend(self, k_BHTD: Tensor, v_BHTD: Tensor) -> tuple[Tensor, Tensor]:
        """Append the present; returns all keys and values so far, (B, H, S, D)."""
        end = self.pos + k_BHTD.shape[2]
        self.keys[:, :, self.pos : end] = k_BHTD
        self.values[:, :, self.pos : end] = v_BHTD
        return self.keys[:, :, :end], self.values[:, :, :end]


class CausalSelfAttention(nn.Module):
    """Each position attends to itself and everything before it."""

    def __init__(self, n_embd: int, n_head: int, dropout: float, bias: bool) -> None:
        super().__init__()
        if n_embd % n_head:
            raise ValueError(f"n_embd={n_embd} is not a multiple of n_head={n_head}")
        self.n_head = n_head
        self.dropout = dropout
        self.qkv = nn.Linear(n_embd, 3 * n_embd, bias=bias)
        self.projection = nn.Linear(n_embd, n_embd, bias=bias)

    def forward(self, x_BTC: Tensor, past: KeyValues | None = None) -> Tensor:
        q_BHTD, k_BHSD, v_BHSD = (
            part.unflatten(-1, (self.n_head, -1)).transpose(1, 2)
            for part in self.qkv(x_BTC).chunk(3, dim=-1)
        )
        if past is not None:
            k_BHSD, v_BHSD = past.extend(k_BHSD, v_BHSD)
        y_BHTD = attend(q_BHTD, k_BHSD, v_BHSD, self.dropout if self.training else 0.0)
        return self.projection(y_BHTD.transpose(1, 2).flatten(-2))


def attend(q_BHTD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, dropout: float = 0.0) -> Tensor:
    """Softmax attention of the last T of S positions, each over itself and all before it."""
    time, keys = q_BHTD.shape[2], k_BHSD.shape[2]
    mask = None
    if 1 < time < keys:
        mask = torch.ones(time, keys, dtype=torch.bool, device=q_BHTD.device).tril(keys - time)
    # A single query may see every key; with no past, torch's own causal path is the fast one.
    return F.scaled_dot_product_attention(
        q_BHTD, k_BHSD, v_BHSD, mask, dropout, is_causal=time == keys > 1
    )
