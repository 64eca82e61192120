"""WaveNet's closed forms and mutants."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo_models import Mutant, widened
from zoo.language_model import Cache, LanguageModel
from zoo.layers import causal_conv
from zoo.layers.causal_conv import LastInputs


def parameters(node: dict[str, Any], V: int) -> int:
    C, R, S = (node[name] for name in ("n_embd", "channels_residual", "channels_skip"))
    G = widened(node, "channels_gate")
    kernels = node["kernel_sizes"] * node["n_stack"]
    initial = node["initial_conv"] * C * R + R if node["initial_conv"] else 0
    norm = {None: 0, "rms_norm": R, "layer_norm": 2 * R, "batch_norm": 2 * R}[node["norm"]]
    blocks = sum(k * R * 2 * G + 2 * G + (G * R + R) + (G * S + S) + norm for k in kernels)
    dead = 0 if node["last_residual"] else G * R + R
    output = S * S + S if node["output"] == "two_layers" else 0
    return V * C + initial + blocks - dead + output + S * V + V


def forward_flops(node: dict[str, Any], V: int, T: int) -> float:
    C, R, S = (node[name] for name in ("n_embd", "channels_residual", "channels_skip"))
    G = widened(node, "channels_gate")
    kernels = node["kernel_sizes"] * node["n_stack"]
    initial = (node["initial_conv"] or 0) * C * R
    blocks = sum(2 * k * R * G + G * R + G * S for k in kernels)
    dead = 0 if node["last_residual"] else G * R
    output = S * S if node["output"] == "two_layers" else 0
    return 2 * T * (initial + blocks - dead + output + S * V)


def _pads(monkeypatch: pytest.MonkeyPatch, share_behind: float) -> None:
    pad = functional.pad

    def shifted(x: Tensor, sides: tuple[int, ...]) -> Tensor:
        behind = round(sides[2] * share_behind)
        return pad(x, (*sides[:2], sides[2] - behind, behind))

    monkeypatch.setattr(causal_conv.F, "pad", shifted)


def _padded_behind(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    _pads(monkeypatch, 1.0)


def _padded_around(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `padding="same"` does."""
    _pads(monkeypatch, 0.5)


def _reshaped(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The study notes' way from (B, channels, T) to (B, T, channels)."""
    conv = model.blocks[0].conv
    convolve = conv.forward

    def forward(x: Tensor, past: LastInputs | None = None) -> Tensor:
        y = convolve(x, past)
        return y.mT.contiguous().view_as(y)

    conv.forward = forward


def _swapped_arguments(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The study notes' error: the dilation that each layer gets is the kernel size."""
    for block in model.blocks:
        block.conv.dilation = block.conv.kernel_size


def _one_short(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """One layer's cache holds one input too few."""
    init_cache = model.init_cache

    def short(batch_size: int) -> Cache:
        cache = init_cache(batch_size)
        cache.tensors["blocks.4.conv.inputs"] = cache.tensors["blocks.4.conv.inputs"][:, 1:]
        return cache

    model.init_cache = short  # type: ignore[method-assign]


def _one_late(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    read = LastInputs.read
    monkeypatch.setattr(
        LastInputs, "read", lambda past, distances: read(past, [d + 1 for d in distances])
    )


def _never_written(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LastInputs, "write", lambda past, x: None)


def _written_from_slot_zero(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(past: LastInputs, x: Tensor) -> None:
        kept = min(x.shape[1], past.ring.shape[1])
        past.ring[:, :kept] = x[:, x.shape[1] - kept :]

    monkeypatch.setattr(LastInputs, "write", write)


def _statistics_of_the_batch(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    for block in model.blocks:
        block.norm.train()


def _unread_residual(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    block = model.blocks[-1]
    block.residual = nn.Linear(block.skip.in_features, block.conv.in_channels).double()


def _lost_skip(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    block = model.blocks[2]
    block.skip.forward = lambda z: torch.zeros(())


MUTANTS = [
    Mutant("padded behind the text", "causality", "wavenet", _padded_behind),
    Mutant("padded on both sides", "causality", "wavenet", _padded_around),
    Mutant("reshaped, not transposed", "causality", "wavenet", _reshaped),
    Mutant(
        "statistics of the batch", "causality", "wavenet", _statistics_of_the_batch,
        ("model.norm=batch_norm",),
    ),
    Mutant("kernel for dilation", "receptive_field", "wavenet", _swapped_arguments),
    Mutant("a layer's cache one short", "split", "wavenet", _one_short),
    Mutant("the cache read one late", "split", "wavenet", _one_late),
    Mutant("the cache never written", "split", "wavenet", _never_written),
    Mutant("the cache no ring", "split", "wavenet", _written_from_slot_zero),
    Mutant("a residual map that nothing reads", "gradient", "wavenet", _unread_residual),
    Mutant("a skip connection lost", "gradient", "wavenet", _lost_skip),
]  # fmt: skip
