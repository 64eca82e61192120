"""Causal self-attention within segments: MEGABYTE's patches, Perceiver AR's latents.

Positions are cut into segments of equal length, counted from the first of all; the cost grows with
T·segment instead of T².

B batch, T time (queries), S keys past and present, C channels, H heads, D channels of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zoo.layers.attention import CausalSelfAttention, KeyValues, attend
from zoo.layers.rotary import rotate
from zoo.layers.transformer import Block

THETA = 10000.0  # of the rotary positions (Su et al. 2021, section 3.3)


class SegmentedSelfAttention(CausalSelfAttention):
    """Each position attends to its own segment up to itself, and to the `overlap` last positions of
    the segment before. With an overlap, positions are rotary."""

    def __init__(
        self, n_embd: int, n_head: int, dropout: float, bias: bool, segment: int, overlap: int = 0
    ) -> None:
        super().__init__(n_embd, n_head, dropout, bias, rotary_theta=THETA if overlap else None)
        self.segment = segment
        self.overlap = overlap

    def past_shape(self, batch_size: int, block_size: int) -> tuple[int, int, int, int]:
        # A position sees at most so many before it: those of its segment, and the overlap.
        return super().past_shape(batch_size, min(self.segment - 1 + self.overlap, block_size))

    def forward(self, x_BTC: Tensor, past: KeyValues | None = None) -> Tensor:
        start = past.pos if past is not None else 0
        q_BHTD, k_BHSD, v_BHSD = (
            part.unflatten(-1, (-1, self.n_channels)).transpose(1, 2)
            for part in self.qkv(x_BTC).chunk(3, dim=-1)
        )
        if self.rotary_theta is not None:
            positions_T = torch.arange(start, start + x_BTC.shape[1], device=x_BTC.device)
            q_BHTD = rotate(q_BHTD, positions_T, self.rotary_theta)
            k_BHSD = rotate(k_BHSD, positions_T, self.rotary_theta)
        if past is not None:
            k_BHSD, v_BHSD = past.extend(k_BHSD, v_BHSD)
        y_BHTD = attend_in_segments(
            q_BHTD, k_BHSD, v_BHSD, start, self.segment, self.overlap,
            self.dropout if self.training else 0.0,
        )  # fmt: skip
        return self.projection(y_BHTD.transpose(1, 2).flatten(-2))


class SegmentedBlock(Block):
    """The pre-norm transformer block with attention in segments; `options` are Block's."""

    def __init__(
        self,
        n_embd: int,
        n_head: int,
        dropout: float,
        bias: bool,
        segment: int,
        overlap: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(n_embd, n_head, dropout, bias, **options)
        self.attention = SegmentedSelfAttention(
            n_embd, n_head, self.attention.dropout, bias, segment, overlap
        )


def attend_in_segments(
    q_BHTD: Tensor,
    k_BHSD: Tensor,
    v_BHSD: Tensor,
    start: int,
    segment: int,
    overlap: int = 0,
    dropout: float = 0.0,
) -> Tensor:
    """Attention of the T positions from `start` on; the S keys end where the queries do.

    Complete segments are computed in one call. A separate call is needed for a segment that started
    before `start`, for one that does not end here, and for the first one if it lacks the overlap.
    """
    end = start + q_BHTD.shape[2]
    first_key = end - k_BHSD.shape[2]
    pieces, position = [], start
    while position < end:
        begin = position - position % segment
        seen = max(begin - overlap, 0)
        regular = position == begin and seen == begin - overlap
        whole = (end - position) // segment if regular else 0
        stop = position + whole * segment if whole else min(begin + segment, end)
        q = q_BHTD[:, :, position - start : stop - start]
        k = k_BHSD[:, :, seen - first_key : stop - first_key]
        v = v_BHSD[:, :, seen - first_key : stop - first_key]
        if whole:
            # Segments become additional heads.
            q = q.unflatten(2, (whole, segment)).flatten(1, 2)
            k, v = (
                x.unfold(2, overlap + segment, segment).transpose(-1, -2).flatten(1, 2)
                for x in (k, v)
            )
        y = attend(q, k, v, dropout)
        pieces.append(y.unflatten(1, (-1, whole)).flatten(2, 3) if whole else y)
        position = stop
    return torch.cat(pieces, dim=2)
