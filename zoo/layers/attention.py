"""Causal self-attention (Vaswani et al. 2017, arXiv 1706.03762, section 3.2) with an explicit past.

B batch, T time (queries), S keys past and present, C channels, H heads, G heads of keys and values,
D channels of a head.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.language_model import Cache
from zoo.layers.checks import require_positive
from zoo.layers.dropout import drop_out
from zoo.layers.norms import make_norm
from zoo.layers.positions import alibi_bias, alibi_slopes
from zoo.layers.rotary import rotate
from zoo.roles import joint

# Over so few keys, torch's attention on a CPU takes longer than products of all scores at once,
# forward and backward: three times as long in bf16, up to three times in fp32 with two threads.
# Those round scores and weights to bf16 there, as any product under autocast is: outputs are off by
# 0.3 to 1 % in place of 0.2. Memory grows with the keys' square.
SHORT, SHORT_BF16 = 128, 512
MOST_SCORES = 1 << 24  # in fp32, which are kept for the backward pass


@dataclass
class KeyValues:
    """One layer's keys and values of the `pos` tokens before: buffers (B, G, size, D).

    A buffer that is too short for all of them, a banded layer's, keeps the latest. place: in place
    of `pos`, see Cache.
    """

    keys: Tensor
    values: Tensor
    pos: int
    place: Tensor | None = field(default=None, kw_only=True)

    @classmethod
    def of(cls, cache: Cache | None, layer: int | str, pos: int) -> KeyValues | None:
        if cache is None:
            return None
        keys, values = (cache.tensors[f"{layer}.{name}"] for name in ("keys", "values"))
        return cls(keys, values, pos, place=cache.place)

    @staticmethod
    def buffers(
        layer: int | str, shape: tuple[int, int, int, int], like: Tensor
    ) -> dict[str, Tensor]:
        """One layer's buffers, (B, G, size, D), by the names `of` looks up."""
        return {f"{layer}.keys": like.new_zeros(shape), f"{layer}.values": like.new_zeros(shape)}

    def extend(self, k_BGTD: Tensor, v_BGTD: Tensor) -> tuple[Tensor, Tensor]:
        """Append the present; returns the keys and values kept and present, (B, G, S, D)."""
        return self._append(self.keys, k_BGTD), self._append(self.values, v_BGTD)

    def extend_at(
        self, place: Tensor, k_BG1D: Tensor, v_BG1D: Tensor, slides: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `extend`, of one token at a place (1,), by the same operations at every place. slides:
        the buffers keep the latest; else they hold all. Also returns how far back each key is,
        (S,): less than nothing for what was not written yet.
        """
        at_S = torch.arange(self.keys.shape[2], device=place.device)
        if not slides:
            self.keys.index_copy_(2, place, k_BG1D.to(self.keys.dtype))
            self.values.index_copy_(2, place, v_BG1D.to(self.values.dtype))
            return self.keys, self.values, place - at_S
        keys_BGSD = self._slide(self.keys, k_BG1D, at_S, place)
        values_BGSD = self._slide(self.values, v_BG1D, at_S, place)
        back_S = place - (at_S + (place - len(at_S)).clamp(min=0))
        back_S = torch.where(back_S > 0, back_S, -1)
        return keys_BGSD, values_BGSD, torch.cat([back_S, torch.zeros_like(place)])

    @staticmethod
    def _slide(buffer: Tensor, present: Tensor, at_S: Tensor, place: Tensor) -> Tensor:
        """The buffer and the present, (B, G, size + 1, D), of which the buffer keeps the latest."""
        joined = torch.cat([buffer, present], dim=2)
        written = torch.where((at_S == place)[:, None], present, buffer)
        buffer.copy_(torch.where(place < len(at_S), written, joined[:, :, 1:]))
        return joined

    def _append(self, buffer: Tensor, present: Tensor) -> Tensor:
        size, end = buffer.shape[2], self.pos + present.shape[2]
        if end <= size:
            buffer.narrow(2, self.pos, end - self.pos).copy_(present)
            return buffer.narrow(2, 0, end)
        joined = torch.cat([buffer[:, :, : self.pos], present], dim=2)
        buffer.copy_(joined[:, :, joined.shape[2] - size :])
        return joined


class CausalSelfAttention(nn.Module):
    """Each position attends to itself and to earlier positions.

    dropout: on the attention weights.
    band: only the last `band` positions are seen, the present one among them (local attention:
        Child et al. 2019, arXiv 1904.10509, and GPT-3). None: all.
    rotary_theta: the base of rotary positions. None: no rotary positions.
    alibi: scores fall with the distance, by a slope for each head (see alibi_slopes).
    n_kv_head: heads of keys and values; n_head / n_kv_head neighbouring heads of queries share one
        (grouped-query attention: Ainslie et al. 2023, arXiv 2305.13245, section 2.2). None: n_head.
    qk_norm: RMS norm of each head's queries and keys (Henry et al. 2020, arXiv 2010.04245, in the
        form of Qwen 3, arXiv 2505.09388, section 2).
    """

    def __init__(
        self,
        n_embd: int,
        n_head: int,
        dropout: float,
        bias: bool,
        *,
        band: int | None = None,
        rotary_theta: float | None = None,
        alibi: bool = False,
        n_kv_head: int | None = None,
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        n_kv_head = n_head if n_kv_head is None else n_kv_head
        require_positive(n_embd=n_embd, n_head=n_head, n_kv_head=n_kv_head)
        if n_embd % n_head:
            raise ValueError(f"n_embd={n_embd} is not a multiple of n_head={n_head}")
        if n_head % n_kv_head:
            raise ValueError(f"n_head={n_head} is not a multiple of n_kv_head={n_kv_head}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout:g} on the attention weights must be in [0, 1)")
        if band is not None and band < 1:
            raise ValueError(f"a band of {band} must be at least 1: a position sees itself")
        n_channels = n_embd // n_head
        if rotary_theta is not None and (rotary_theta <= 0 or n_channels % 2):
            raise ValueError(
                f"rotary positions need rotary_theta={rotary_theta:g} above 0 and "
                f"n_embd/n_head={n_channels} even: they turn pairs of channels"
            )
        self.n_channels = n_channels
        self.n_kv_head = n_kv_head
        self.dropout = dropout
        self.band = band
        self.rotary_theta = rotary_theta
        self.slopes = alibi_slopes(n_head) if alibi else None
        self.qk_norm = qk_norm
        self.heads = [n_head, n_kv_head, n_kv_head]
        maps = [n_channels] * sum(self.heads)
        self.qkv = joint(nn.Linear(n_embd, sum(maps), bias=bias), maps)
        self.q_norm = make_norm("rms_norm", n_channels, bias=False) if qk_norm else nn.Identity()
        self.k_norm = make_norm("rms_norm", n_channels, bias=False) if qk_norm else nn.Identity()
        self.projection = nn.Linear(n_embd, n_embd, bias=bias)

    def past_shape(self, batch_size: int, block_size: int) -> tuple[int, int, int, int]:
        """The shape (B, G, size, D) of this layer's buffers; of a band all but the present."""
        size = block_size if self.band is None else min(self.band - 1, block_size)
        return batch_size, self.n_kv_head, size, self.n_channels

    def forward(self, x_BTC: Tensor, past: KeyValues | None = None) -> Tensor:
        heads = self.qkv(x_BTC).unflatten(-1, (-1, self.n_channels)).transpose(1, 2)
        q_BHTD, k_BGSD, v_BGSD = heads.split(self.heads, dim=1)
        if self.qk_norm:
            q_BHTD, k_BGSD = self.q_norm(q_BHTD), self.k_norm(k_BGSD)
        if self.rotary_theta is not None:
            positions_T = None if past is None else past.place
            if positions_T is None:
                start = 0 if past is None else past.pos
                positions_T = torch.arange(start, start + x_BTC.shape[1], device=x_BTC.device)
            q_BHTD = rotate(q_BHTD, positions_T, self.rotary_theta)
            k_BGSD = rotate(k_BGSD, positions_T, self.rotary_theta)
        if past is not None and past.place is not None:
            slides = self.band is not None
            k_BGSD, v_BGSD, back_S = past.extend_at(past.place, k_BGSD, v_BGSD, slides)
            y_BHTD = attend_back(q_BHTD, k_BGSD, v_BGSD, back_S, self.slopes)
        else:
            if past is not None:
                k_BGSD, v_BGSD = past.extend(k_BGSD, v_BGSD)
            dropout = self.dropout if self.training else 0.0
            y_BHTD = attend(q_BHTD, k_BGSD, v_BGSD, dropout, self.band, self.slopes)
        return self.projection(y_BHTD.transpose(1, 2).flatten(-2))


def attend(
    q_BHTD: Tensor,
    k_BGSD: Tensor,
    v_BGSD: Tensor,
    dropout: float = 0.0,
    band: int | None = None,
    slopes: list[float] | None = None,
) -> Tensor:
    """Causal softmax attention of the last T of S positions, over all earlier positions or the last
    `band`, the present one included. With fewer heads of keys than of queries, neighbours share.
    slopes: of each head's ALiBi.
    """
    time, keys = q_BHTD.shape[2], k_BGSD.shape[2]
    fp32 = q_BHTD.dtype == k_BGSD.dtype == v_BGSD.dtype == torch.float32
    half = None if fp32 else _half(q_BHTD, k_BGSD, v_BGSD)
    short = half == torch.bfloat16 and keys <= SHORT_BF16
    if fp32 and 1 < time <= keys <= SHORT:  # a single query is less work than the calls
        short = q_BHTD.shape[:3].numel() * keys <= MOST_SCORES
    explicit = q_BHTD.is_cpu and (short or dropout > 0)
    band = keys if band is None else min(band, keys)
    mask_TS = None
    if band < keys or 1 < time < keys or (slopes is not None and keys > 1):
        ones = torch.ones(time, keys, dtype=torch.bool, device=q_BHTD.device)
        mask_TS = ones.tril(keys - time).triu(keys - time - band + 1)
    if slopes is not None and mask_TS is not None:
        mask_TS = alibi_bias(slopes, time, keys, q_BHTD).masked_fill(~mask_TS, -torch.inf)
    # A single query may see every key; with no past, torch's own causal path is the fast one.
    causal = mask_TS is None and time > 1
    if explicit:
        if causal:
            mask_TS = torch.ones(time, time, dtype=torch.bool).tril()
        wide = torch.float32 if half == torch.float16 else half  # whose scores can overflow
        q, k, v = (x if wide is None else x.to(wide) for x in (q_BHTD, k_BGSD, v_BGSD))
        with torch.autocast("cpu", enabled=False):
            y_BHTD = _attend_explicitly(q, k, v, mask_TS, dropout)
        return y_BHTD if half is None else y_BHTD.to(half)
    return F.scaled_dot_product_attention(
        q_BHTD, k_BGSD, v_BGSD, mask_TS, dropout, is_causal=causal,
        enable_gqa=q_BHTD.shape[1] != k_BGSD.shape[1],
    )  # fmt: skip


def attend_back(
    q_BH1D: Tensor,
    k_BGSD: Tensor,
    v_BGSD: Tensor,
    back_S: Tensor,
    slopes: list[float] | None = None,
) -> Tensor:
    """As `attend`, of a single query and keys that are so many positions back. Those less than
    nothing back are not seen."""
    seen_S = back_S >= 0
    mask_1S = seen_S[None]
    if slopes is not None:
        # By filling: a copy from the CPU can't be captured in a CUDA graph.
        slopes_H = torch.cat([q_BH1D.new_full((1,), slope) for slope in slopes])
        mask_1S = (slopes_H[:, None, None] * -back_S).masked_fill(~seen_S, -torch.inf)
    return F.scaled_dot_product_attention(
        q_BH1D, k_BGSD, v_BGSD, mask_1S, enable_gqa=q_BH1D.shape[1] != k_BGSD.shape[1]
    )


def _half(*tensors: Tensor) -> torch.dtype | None:
    """The half precision that one of them has."""
    return next((x.dtype for x in tensors if x.dtype.itemsize < 4), None)


def _attend_explicitly(
    q_BHTD: Tensor, k_BGSD: Tensor, v_BGSD: Tensor, mask_TS: Tensor | None, rate: float
) -> Tensor:
    """As torch's function, with our dropout, by products of all scores at once. mask_TS: what is
    seen, or what is added to scores."""
    if (shared := q_BHTD.shape[1] // k_BGSD.shape[1]) > 1:
        k_BGSD, v_BGSD = (x.repeat_interleave(shared, dim=1) for x in (k_BGSD, v_BGSD))
    batch, heads, time, channels = q_BHTD.shape
    added = q_BHTD.new_zeros(1, 1) if mask_TS is None else mask_TS
    if added.dtype == torch.bool:
        added = torch.zeros_like(added, dtype=q_BHTD.dtype).masked_fill_(~added, -torch.inf)
    added = added.to(q_BHTD.dtype).expand(batch, heads, time, k_BGSD.shape[2]).flatten(0, 1)
    q_NTD, k_NSD, v_NSD = (x.flatten(0, 1) for x in (q_BHTD, k_BGSD, v_BGSD))
    scores_NTS = torch.baddbmm(added, q_NTD, k_NSD.mT, alpha=channels**-0.5)
    weights_BHTS = scores_NTS.unflatten(0, (batch, heads)).softmax(-1)
    weights_BHTS = drop_out(weights_BHTS, rate) if rate else weights_BHTS
    return (weights_BHTS.flatten(0, 1) @ v_NSD).unflatten(0, (batch, heads))
