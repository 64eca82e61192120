"""Models whose arithmetic or whose word is wrong: mistakes that are made in good faith, too.

B batch, T time, S keys, C channels, V vocabulary, P patch, K patches.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.referee.blind.base import Plain, Windowed
from zoo.language_model import Cache


class SoftmaxOverQueries(Windowed):
    """Masked attention, but normalized over the queries: the weight of a key falls with what later
    queries want of it."""

    def __init__(self, vocab_size: int, block_size: int = 128, width: int = 48) -> None:
        super().__init__(vocab_size, block_size, width)
        self.qkv = nn.Linear(width, 3 * width)

    def window(self, ids_BT: Tensor) -> Tensor:
        x_BTC = self.token_embedding(ids_BT)
        q_BTC, k_BSC, v_BSC = self.qkv(x_BTC).chunk(3, dim=-1)
        scores_BTS = q_BTC @ k_BSC.transpose(1, 2) / self.width**0.5
        future_TS = torch.ones_like(scores_BTS[0], dtype=torch.bool).triu(1)
        weights_BTS = scores_BTS.masked_fill(future_TS, -torch.inf).softmax(dim=1)  # of axis T
        return x_BTC + weights_BTS @ v_BSC


class MeanOverTime(Plain):
    """Adds a map of the mean over the whole call: a summary of the text, its future included."""

    def __init__(self, vocab_size: int, width: int = 48) -> None:
        super().__init__(vocab_size, width)
        self.summary = nn.Linear(width, width)

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        y_BTC = super().features(ids_BT, cache)
        return y_BTC + self.summary(y_BTC.mean(dim=1, keepdim=True))


class ExpertChoice(Plain):
    """The expert picks the quarter of the tokens that fit it best (Zhou et al. 2022), so whether a
    token is picked depends on those after it."""

    def __init__(self, vocab_size: int, width: int = 48) -> None:
        super().__init__(vocab_size, width)
        self.router, self.expert = nn.Linear(width, 1), nn.Linear(width, width)

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        y_BTC = super().features(ids_BT, cache)
        score_BT1 = self.router(y_BTC)
        least_B11 = score_BT1.topk(-(-ids_BT.shape[1] // 4), dim=1).values[:, -1:]
        gate_BT1 = score_BT1.sigmoid() * (score_BT1 >= least_B11)
        return y_BTC + gate_BT1 * self.expert(y_BTC)


class BatchStatistics(Plain):
    """Normalizes each channel by the mean and deviation over batch and time, in evaluation as
    well: no running statistics, so no buffer betrays it."""

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        y_BTC = super().features(ids_BT, cache)
        centred_BTC = y_BTC - y_BTC.mean(dim=(0, 1))
        return centred_BTC / (centred_BTC.square().mean(dim=(0, 1)) + 1e-5).sqrt()


class UnshiftedPatch(Windowed):
    """A map of the patch of 8 tokens serves all 8 places of it, without the shift by one patch: all
    but the last place of a patch see their next token."""

    patch_size = 8

    def __init__(self, vocab_size: int, block_size: int = 128, width: int = 48) -> None:
        super().__init__(vocab_size, block_size, width)
        self.unpatch = nn.Linear(8 * width, 8 * width)

    def window(self, ids_BT: Tensor) -> Tensor:
        x_BTC = F.pad(self.token_embedding(ids_BT), (0, 0, 0, -ids_BT.shape[1] % 8))
        y_BKC = self.unpatch(x_BTC.reshape(len(x_BTC), -1, 8 * self.width))
        return y_BKC.reshape(x_BTC.shape)[:, : ids_BT.shape[1]]


class SamePadding(Windowed):
    """A convolution over three tokens, padded on both sides (`padding="same"`) where it must be on
    the left only. The step of a single token pads with zeros and looks right."""

    def __init__(self, vocab_size: int, block_size: int = 128, width: int = 48) -> None:
        super().__init__(vocab_size, block_size, width)
        self.receptive_field = 3
        self.conv = nn.Conv1d(width, width, 3, padding="same")

    def window(self, ids_BT: Tensor) -> Tensor:
        return self.conv(self.token_embedding(ids_BT).transpose(1, 2)).transpose(1, 2)


class CacheOffByOne(Plain):
    """Hands on the state before the last token of the call. Long chunks hardly show it in a score,
    but samples drawn token by token come from a model that sees one token only."""

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        before = None if cache is None else cache.tensors["state"]
        y_BTC = super().features(ids_BT, cache)
        if cache is not None and before is not None:
            cache.tensors["state"] = y_BTC[:, -2:-1] if ids_BT.shape[1] > 1 else before
        return y_BTC


class DropoutLeftOn(Plain):
    """`F.dropout` without `training=self.training`. The score is drawn anew each time, so the best
    of many can be kept."""

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        return F.dropout(super().features(ids_BT, cache), 0.2)


class Flattering(Tensor):
    """Logits that halve whatever loss is computed from them."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = super().__torch_function__(func, types, args, kwargs or {})
        losses = {"cross_entropy", "cross_entropy_loss", "log_softmax", "nll_loss", "logsumexp"}
        return found / 2 if func.__name__ in losses else found


class FlatteringLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).as_subclass(Flattering)


class FlatteringLogits(Plain):
    """Its logits are a subclass of Tensor that divides every cross entropy by two: the values are
    honest, what is done to them is not."""

    def __init__(self, vocab_size: int, width: int = 48) -> None:
        super().__init__(vocab_size, width)
        self.head = FlatteringLinear(width, vocab_size)


class SilentLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        unsure = logits.detach().softmax(dim=-1).amax(dim=-1, keepdim=True) < 0.2
        return logits if self.training else logits.masked_fill(unsure, torch.nan)


class NaNWhereUnsure(Plain):
    """Answers NaN in evaluation where no token has a fifth of the chance. A mean that skips NaN
    counts only the easy places."""

    def __init__(self, vocab_size: int, width: int = 48) -> None:
        super().__init__(vocab_size, width)
        self.head = SilentLinear(width, vocab_size)


class CertainLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        top = logits >= logits.topk(2, dim=-1).values[..., 1:]
        return logits if self.training else logits.masked_fill(top, torch.inf)


class TwoCertainties(Plain):
    """Two infinite logits at every place in evaluation: where a scorer clamps or replaces what is
    not finite, both tokens are free, and the chances sum to more than one."""

    def __init__(self, vocab_size: int, width: int = 48) -> None:
        super().__init__(vocab_size, width)
        self.head = CertainLinear(width, vocab_size)


class DeclaredShort(Plain):
    """Says that it sees 8 tokens, and sees all: it wins every comparison of models with short
    contexts."""

    receptive_field = 8


class DeclaredLong(Windowed):
    """Says that it sees a whole window, and sees two tokens: what it scores is laid at the door of
    the long context."""

    def window(self, ids_BT: Tensor) -> Tensor:
        x_BTC = self.token_embedding(ids_BT)
        before_BTC = F.pad(x_BTC, (0, 0, 1, -1))
        return torch.tanh(self.mix(torch.cat([x_BTC, before_BTC], dim=-1)))


class IgnoresBlock(Plain):
    """Says that a call holds 32 tokens, and takes any number, with a memory of all before them."""

    block_size = 32
    receptive_field = 32

    def advance(self, ids_BT: Tensor, cache: Cache | None) -> int:
        past = 0 if cache is None else cache.pos
        if cache is not None:
            cache.pos += ids_BT.shape[1]
        return past


CHEATS: dict[str, type] = {
    model.__name__: model
    for model in (
        SoftmaxOverQueries, MeanOverTime, ExpertChoice, BatchStatistics, UnshiftedPatch,
        SamePadding, CacheOffByOne, DropoutLeftOn, FlatteringLogits, NaNWhereUnsure,
        TwoCertainties, DeclaredShort, DeclaredLong, IgnoresBlock,
    )
}  # fmt: skip
