"""Attention among steps of which each row of a batch has its own number, at its own positions:
SpaceByte's words, H-Net's chunks.

B batch, T time, K steps of a call, C channels, H heads, D channels of a head, S keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.language_model import Cache
from zoo.layers.attention import CausalSelfAttention, KeyValues
from zoo.layers.feed_forward import Activation
from zoo.layers.norms import Norm
from zoo.layers.rotary import rotate
from zoo.layers.transformer import Block


def step_places(due_BT: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The positions at which a step is due, and whether each is one, (B, most) both.

    Of each row they come first, in order; then other positions fill it up.
    """
    places_BK = (~due_BT).to(torch.uint8).argsort(dim=1, stable=True)[:, :most]
    return places_BK, due_BT.gather(1, places_BK)


@dataclass
class StepKeyValues(KeyValues):
    """One layer's keys and values of each row's own number of steps before.

    numbers: (B, K), of each step of the call in its row. real: (B, K), whether it is one, and no
    filling.
    """

    numbers: Tensor
    real: Tensor

    @classmethod
    def of_steps(
        cls, cache: Cache | None, layer: str, number_BK: Tensor, real_BK: Tensor
    ) -> StepKeyValues | None:
        if cache is None:
            return None
        keys, values = (cache.tensors[f"{layer}.{name}"] for name in ("keys", "values"))
        return cls(keys, values, 0, number_BK, real_BK)

    def _append(self, buffer: Tensor, present: Tensor) -> Tensor:
        """The buffer and the present behind it; the real ones of those enter the buffer."""
        size, present = buffer.shape[2], present.to(buffer.dtype)
        joined = torch.cat([buffer, present], dim=2)
        places_BK = torch.where(self.real, self.numbers, size)  # filling: behind the buffer
        index_BGKD = places_BK[:, None, :, None].expand_as(present)
        buffer.copy_(F.pad(buffer, (0, 0, 0, 1)).scatter(2, index_BGKD, present)[:, :, :size])
        return joined

    def mask(self) -> Tensor:
        """Which of the keys, those of the buffer and of the call, each step sees: (B, 1, K, S)."""
        size, most = self.keys.shape[2], self.numbers.shape[1]
        places_S = torch.arange(size, device=self.keys.device)
        before_BKS = (places_S < self.numbers[:, :1, None]).expand(-1, most, -1)
        present_KS = torch.ones(most, most, dtype=torch.bool, device=self.keys.device).tril()
        present_BKS = present_KS.expand(len(before_BKS), -1, -1)
        return torch.cat([before_BKS, present_BKS], dim=2)[:, None]


class StepBlock(Block):
    """A block over steps; its options are Block's."""

    def __init__(
        self,
        n_embd: int,
        n_head: int,
        dropout: float,
        bias: bool,
        *,
        activation: Activation = "gelu",
        norm: Norm = "layer_norm",
        **attention: Any,
    ) -> None:
        super().__init__(
            n_embd, n_head, dropout, bias, activation=activation, norm=norm, **attention
        )
        self.attention = StepSelfAttention(n_embd, n_head, dropout, bias, **attention)


class StepSelfAttention(CausalSelfAttention):
    """Attention of the steps of a call to each other, and to those before. Rotary positions are the
    steps' numbers."""

    def forward(self, x_BKC: Tensor, past: KeyValues | None = None) -> Tensor:
        if past is None:  # filling comes last, where no step sees it
            return super().forward(x_BKC)
        assert isinstance(past, StepKeyValues)
        q_BHKD, k_BHSD, v_BHSD = (
            part.unflatten(-1, (-1, self.n_channels)).transpose(1, 2)
            for part in self.qkv(x_BKC).chunk(3, dim=-1)
        )
        q_BHKD, k_BHSD = self.q_norm(q_BHKD), self.k_norm(k_BHSD)
        if self.rotary_theta is not None:
            positions_B1K = past.numbers[:, None]
            q_BHKD = rotate(q_BHKD, positions_B1K, self.rotary_theta)
            k_BHSD = rotate(k_BHSD, positions_B1K, self.rotary_theta)
        k_BHSD, v_BHSD = past.extend(k_BHSD, v_BHSD)
        dropout = self.dropout if self.training else 0.0
        y_BHKD = F.scaled_dot_product_attention(q_BHKD, k_BHSD, v_BHSD, past.mask(), dropout)
        return self.projection(y_BHKD.transpose(1, 2).flatten(-2))
