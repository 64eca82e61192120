"""RWKV-7: a generalized delta rule, whose decay and rate each channel has for itself.

Peng et al., "RWKV-7 'Goose' with Expressive Dynamic State Evolution" (2025), arXiv 2503.14456,
section 4; initial values after the authors' code. B batch, T time, C channels, H heads of N
channels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.language_model import Cache, LanguageModel
from zoo.layers.checks import require_positive
from zoo.layers.dropout import Dropout
from zoo.layers.fla_kernels import Recurrence, require_recurrence
from zoo.layers.matrix_memory import generalized_delta_memory


class RWKV7(LanguageModel):
    """n_layer blocks of width n_embd: time mixing, then channel mixing, each added to the stream.

    n_rank: the rank of the maps to decay, rate, value mix and gate. n_inner: the width of channel
    mixing; null: 4·n_embd. dropout: of the embeddings and of each addition to the residual stream.
    recurrence: torch, or fla: by flash-linear-attention's kernels in training and scores, on an
    NVIDIA GPU in bf16.
    """

    block_size = None
    receptive_field = None
    residual = ("projection",)
    takes_ngrams = True
    fixed_step = True

    def __init__(
        self,
        vocab_size: int,
        n_layer: int,
        n_head: int,
        n_embd: int,
        n_rank: int = 16,
        n_inner: int | None = None,
        dropout: float = 0.0,
        recurrence: Recurrence = "torch",
    ) -> None:
        super().__init__()
        n_inner = 4 * n_embd if n_inner is None else n_inner
        require_positive(
            n_layer=n_layer, n_head=n_head, n_embd=n_embd, n_rank=n_rank, n_inner=n_inner
        )
        if n_embd % n_head:
            raise ValueError(f"n_embd={n_embd} is not a multiple of n_head={n_head}")
        self.vocab_size = vocab_size
        self.token_embedding = nn.Embedding(vocab_size, n_embd)
        self.embedding_norm = nn.LayerNorm(n_embd)
        self.dropout = Dropout(dropout)
        layers = range(n_layer)
        self.time_mixings = nn.ModuleList(
            TimeMixing(n_embd, n_head, n_rank, layer, n_layer, recurrence) for layer in layers
        )
        self.channel_mixings = nn.ModuleList(
            ChannelMixing(n_embd, n_inner, 1 - layer / n_layer) for layer in layers
        )
        self.norm = nn.LayerNorm(n_embd)
        self.head = nn.Linear(n_embd, vocab_size, bias=False)
        self.initialize("gpt2")

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        self.advance(ids_BT, cache)
        x_BTC = self.dropout(self.embedding_norm(self.embed(ids_BT, cache)))
        first_value = None
        for layer, mix in enumerate(zip(self.time_mixings, self.channel_mixings, strict=True)):
            mix_time, mix_channels = mix
            y_BTC, value = mix_time(x_BTC, first_value, cache, f"{layer}.time")
            first_value = value if first_value is None else first_value
            x_BTC = x_BTC + self.dropout(y_BTC)
            x_BTC = x_BTC + self.dropout(mix_channels(x_BTC, cache, f"{layer}.channels"))
        return self.norm(x_BTC)

    def init_cache(self, batch_size: int) -> Cache:
        """Of each layer a state (B, H, N, N) and two last inputs (B, C)."""
        tensors: dict[str, Tensor] = {}
        for layer, mixing in enumerate(self.time_mixings):
            assert isinstance(mixing, TimeMixing)
            last = self.token_embedding.weight.new_zeros(batch_size, mixing.n_embd)
            tensors |= {f"{layer}.time.last": last, f"{layer}.channels.last": last.clone()}
            tensors[f"{layer}.time.state"] = mixing.empty_state(batch_size)
        return Cache(tensors)


class TimeMixing(nn.Module):
    """S[t] = (diag(w) - (a·κ)ᵀ κ)·S[t-1] + kᵀ v, read by r[t]·S[t]: what the removed key κ, of
    length 1, finds is taken out to the share a (section 4.1; the state is transposed here).

    Returns its output (B, T, C) and its values, which later layers mix into theirs.
    """

    def __init__(
        self,
        n_embd: int,
        n_head: int,
        n_rank: int,
        layer: int,
        n_layer: int,
        recurrence: Recurrence = "torch",
    ) -> None:
        super().__init__()
        self.recurrence = require_recurrence(recurrence)
        above, depth = 1 - layer / n_layer, layer / max(1, n_layer - 1)
        self.n_embd, self.n_head = n_embd, n_head
        channel = torch.arange(n_embd) / n_embd
        self.input_norm = nn.LayerNorm(n_embd)
        shares = {"r": 0.2, "w": 0.9, "k": 0.7, "v": 0.7, "a": 0.9, "g": 0.2}
        self.mixes = nn.ParameterDict(
            {name: 1 - channel ** (share * above) for name, share in shares.items()}
        )
        self.receptance, self.key, self.value, self.projection = (
            nn.Linear(n_embd, n_embd, bias=False) for _ in range(4)
        )
        self.decay = LowRank(n_embd, n_rank, nn.Tanh())
        self.decay_bias = nn.Parameter(-6.5 + 5 * channel ** (0.85 + depth**0.5))
        self.rate = LowRank(n_embd, n_rank, nn.Identity())
        self.rate_bias = nn.Parameter(torch.zeros(n_embd))
        self.gate = LowRank(n_embd, n_rank, nn.Sigmoid())
        self.value_mix = LowRank(n_embd, n_rank, nn.Identity()) if layer else None
        self.value_mix_bias = nn.Parameter(torch.ones(n_embd)) if layer else None
        self.removed_scale = nn.Parameter(torch.full((n_embd,), 0.85))
        self.key_rate = nn.Parameter(torch.ones(n_embd))
        self.bonus = nn.Parameter(torch.zeros(n_embd))
        self.norm = nn.GroupNorm(n_head, n_embd, eps=64e-5)

    def forward(
        self, x_BTC: Tensor, first_value: Tensor | None, cache: Cache | None, name: str
    ) -> tuple[Tensor, Tensor]:
        x_BTC = self.input_norm(x_BTC)
        change = _before(x_BTC, cache, name) - x_BTC
        mixed = {name: x_BTC + change * mix for name, mix in self.mixes.items()}
        r, k, v = self.receptance(mixed["r"]), self.key(mixed["k"]), self.value(mixed["v"])
        log_w = -math.exp(-0.5) * torch.sigmoid(self.decay_bias + self.decay(mixed["w"]))
        a = torch.sigmoid(self.rate_bias + self.rate(mixed["a"]))
        values = v
        if self.value_mix is not None and first_value is not None:
            share = torch.sigmoid(self.value_mix_bias + self.value_mix(mixed["v"]))
            v = v + (first_value - v) * share
        removed = F.normalize(self._heads(k * self.removed_scale), dim=-1)
        k = k * (1 + (a - 1) * self.key_rate)
        y_BHTN, state = generalized_delta_memory(
            self._heads(r),
            self._heads(log_w),
            self._heads(k),
            self._heads(v),
            removed,
            removed * self._heads(a),
            None if cache is None else cache.tensors[f"{name}.state"],
            by=self.recurrence,
        )
        if cache is not None and state is not None:
            cache.tensors[f"{name}.state"] = state
        y_BTC = self.norm(y_BHTN.transpose(1, 2).flatten(0, 1).flatten(1)).view_as(x_BTC)
        reads = self._heads(r * k * self.bonus).sum(-1, keepdim=True) * self._heads(v)
        y_BTC = y_BTC + reads.transpose(1, 2).flatten(2)
        return self.projection(y_BTC * self.gate(mixed["g"])), values

    def _heads(self, x_BTC: Tensor) -> Tensor:
        """(B, H, T, N)"""
        return x_BTC.unflatten(-1, (self.n_head, -1)).transpose(1, 2)

    def empty_state(self, batch_size: int) -> Tensor:
        n_channels = self.n_embd // self.n_head
        return self.bonus.new_zeros(batch_size, self.n_head, n_channels, n_channels)


class ChannelMixing(nn.Module):
    """A feed-forward network with ReLU² of the present mixed with the position before (section
    4.2)."""

    def __init__(self, n_embd: int, n_inner: int, above: float) -> None:
        super().__init__()
        self.input_norm = nn.LayerNorm(n_embd)
        self.mix = nn.Parameter(1 - (torch.arange(n_embd) / n_embd) ** (above**4))
        self.expand = nn.Linear(n_embd, n_inner, bias=False)
        self.projection = nn.Linear(n_inner, n_embd, bias=False)

    def forward(self, x_BTC: Tensor, cache: Cache | None, name: str) -> Tensor:
        x_BTC = self.input_norm(x_BTC)
        mixed = x_BTC + (_before(x_BTC, cache, name) - x_BTC) * self.mix
        return self.projection(F.relu(self.expand(mixed)).square())


class LowRank(nn.Module):
    """Two linear maps through `n_rank` channels, an activation between them."""

    def __init__(self, n_embd: int, n_rank: int, activation: nn.Module) -> None:
        super().__init__()
        self.down = nn.Linear(n_embd, n_rank, bias=False)
        self.activation = activation
        self.up = nn.Linear(n_rank, n_embd, bias=False)

    def forward(self, x_BTC: Tensor) -> Tensor:
        return self.up(self.activation(self.down(x_BTC)))


def _before(x_BTC: Tensor, cache: Cache | None, name: str) -> Tensor:
    """The input of the position before (token shift); zero before the text."""
    last_BC = cache.tensors[f"{name}.last"] if cache is not None else x_BTC.new_zeros(1)
    if cache is not None:
        cache.tensors[f"{name}.last"] = x_BTC[:, -1].to(last_BC.dtype)
    last_B1C = last_BC.to(x_BTC.dtype).expand(len(x_BTC), x_BTC.shape[2])[:, None]
    return torch.cat([last_B1C, x_BTC[:, :-1]], dim=1)
