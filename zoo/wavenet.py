"""WaveNet: stacks of gated, dilated causal convolutions.

van den Oord et al., "WaveNet: A Generative Model for Raw Audio" (2016), arXiv 1609.03499; decoding
as in Paine et al., "Fast Wavenet Generation Algorithm" (2016), arXiv 1611.09482.
B batch, T time, C channels, V vocabulary.
"""

from __future__ import annotations

from functools import cached_property, reduce
from operator import or_
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from zoo.language_model import Cache, LanguageModel
from zoo.layers.batch_norm import AnyNorm, make_any_norm
from zoo.layers.causal_conv import CausalConv1d, LastInputs
from zoo.layers.checks import require_positive
from zoo.layers.dropout import Dropout, widened
from zoo.roles import joint

Gate = Literal["tanh", "linear"]
Skips = Literal["sum", "mean"]
Output = Literal["two_layers", "one_layer"]


class WaveNet(LanguageModel):
    """n_stack times the same layers, each a dilated convolution with a gate (section 2, figure 4).

    kernel_sizes, dilations: of each layer of a stack, e.g. [2, 2, 2, 2] and [1, 2, 4, 8].
    initial_conv: the kernel size of the convolution before the first block. None: the
    embeddings are the residual stream.
    gate: `tanh`, tanh(a)·sigmoid(b) (equation 2), or `linear`, a·sigmoid(b) (Dauphin et al. 2017,
    arXiv 1612.08083). norm: of each block's input. skips: how the skip outputs are combined.
    dropout: of each gate's output, at the place of Bai et al. 2018 (arXiv 1803.01271, section 3.4),
    but per unit. widen_dropout: widen the gates so that channels_gate units remain on average.
    output: `two_layers`, ReLU → 1×1 → ReLU → 1×1, or `one_layer`, leaky ReLU → 1×1.
    last_residual: give the last block an unused residual map too, to rebuild models whose
    parameters were counted with it.
    """

    block_size = None
    residual = ("residual",)
    takes_ngrams = True
    fixed_step = True

    def __init__(
        self,
        vocab_size: int,
        n_embd: int,
        channels_residual: int,
        channels_gate: int,
        channels_skip: int,
        kernel_sizes: list[int],
        dilations: list[int],
        n_stack: int = 1,
        initial_conv: int | None = 2,
        gate: Gate = "tanh",
        norm: AnyNorm | None = None,
        skips: Skips = "sum",
        output: Output = "two_layers",
        last_residual: bool = False,
        dropout: float = 0.0,
        widen_dropout: bool = False,
    ) -> None:
        super().__init__()
        require_positive(
            n_embd=n_embd, channels_residual=channels_residual, channels_gate=channels_gate,
            channels_skip=channels_skip, n_stack=n_stack, layers=len(kernel_sizes),
            initial_conv=1 if initial_conv is None else initial_conv,
        )  # fmt: skip
        if len(kernel_sizes) != len(dilations):
            raise ValueError(
                f"kernel_sizes={kernel_sizes} and dilations={dilations} must name the same layers"
            )
        for name, choice, choices in (
            ("gate", gate, get_args(Gate)),
            ("skips", skips, get_args(Skips)),
            ("output", output, get_args(Output)),
        ):
            if choice not in choices:
                raise ValueError(f"{name}={choice!r} is not one of {', '.join(choices)}")
        if initial_conv is None and n_embd != channels_residual:
            raise ValueError(
                f"n_embd={n_embd} must equal channels_residual={channels_residual} where no "
                "initial_conv lies between them"
            )
        channels_gate = widened(channels_gate, dropout, widen_dropout)
        self.vocab_size = vocab_size
        self.skips = skips
        layers = list(zip(kernel_sizes, dilations, strict=True)) * n_stack
        self.receptive_field = (initial_conv or 1) + sum((k - 1) * d for k, d in layers)
        self.token_embedding = nn.Embedding(vocab_size, n_embd)
        self.initial_conv = (
            CausalConv1d(n_embd, channels_residual, initial_conv)
            if initial_conv is not None
            else None
        )
        self.blocks = nn.ModuleList(
            GatedBlock(
                CausalConv1d(channels_residual, 2 * channels_gate, kernel_size, dilation),
                channels_skip,
                gate,
                norm,
                dropout,
                residual=last_residual or layer < len(layers) - 1,
            )
            for layer, (kernel_size, dilation) in enumerate(layers)
        )
        self._layers = [(initial_conv or 1, 1), *layers]
        self.output = (
            nn.Sequential(nn.ReLU(), nn.Linear(channels_skip, channels_skip), nn.ReLU())
            if output == "two_layers"
            else nn.LeakyReLU()
        )
        self.head = nn.Linear(channels_skip, vocab_size)
        self.initialize("xavier")

    @cached_property
    def unseen(self) -> frozenset[int]:  # type: ignore[override]
        return _holes(self._layers)

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        past = self.advance(ids_BT, cache)
        x_BTC = self.embed(ids_BT, cache)
        if self.initial_conv is not None:
            y_BTC = self.initial_conv(x_BTC, LastInputs.of(cache, "initial_conv", past))
            x_BTC = y_BTC.to(x_BTC.dtype)  # keep the sums in fp32 under autocast
        total_BTC = x_BTC.new_zeros(1)
        for layer, block in enumerate(self.blocks):
            x_BTC, skip_BTC = block(x_BTC, LastInputs.of(cache, f"blocks.{layer}.conv", past))
            total_BTC = total_BTC + skip_BTC
        return self.output(total_BTC / len(self.blocks) if self.skips == "mean" else total_BTC)

    def init_cache(self, batch_size: int) -> Cache:
        return Cache(
            {
                f"{name}.inputs": module.empty(batch_size)
                for name, module in self.named_modules()
                if isinstance(module, CausalConv1d)
            }
        )


def _holes(layers: list[tuple[int, int]]) -> frozenset[int]:
    """How far back the tokens are that convolutions of these kernel sizes and dilations skip."""
    seen = 1  # bit n: a token n + 1 back
    for kernel_size, dilation in layers:
        seen = reduce(or_, (seen << tap * dilation for tap in range(kernel_size)))
    return frozenset(n for n, bit in enumerate(reversed(f"{seen:b}"), 1) if bit == "0")


class GatedBlock(nn.Module):
    """A convolution's two halves multiplied, the product added to the residual stream and given
    to the output (section 2.3 and 2.4). Returns both."""

    def __init__(
        self,
        conv: CausalConv1d,
        channels_skip: int,
        gate: Gate,
        norm: AnyNorm | None,
        dropout: float,
        residual: bool,
    ) -> None:
        super().__init__()
        channels_residual, channels_gate = conv.in_channels, conv.out_channels // 2
        self.norm = make_any_norm(norm, channels_residual)
        self.conv = conv
        joint(conv.conv, [channels_gate] * 2)  # the filter and the gate
        self.gate = gate
        self.dropout = Dropout(dropout)
        self.skip = nn.Linear(channels_gate, channels_skip)
        self.residual = nn.Linear(channels_gate, channels_residual) if residual else None

    def forward(self, x_BTC: Tensor, past: LastInputs | None = None) -> tuple[Tensor, Tensor]:
        a_BTC, b_BTC = self.conv(self.norm(x_BTC), past).chunk(2, dim=-1)
        z_BTC = (torch.tanh(a_BTC) if self.gate == "tanh" else a_BTC) * torch.sigmoid(b_BTC)
        z_BTC = self.dropout(z_BTC)
        if self.residual is not None:
            x_BTC = x_BTC + self.residual(z_BTC)
        return x_BTC, self.skip(z_BTC)
