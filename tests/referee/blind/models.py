"""Models that look at the next token, but only on an occasion on which nobody may be testing.

B batch, T time, C channels, V vocabulary.
"""

from __future__ import annotations

import math
import sys
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.referee.blind.base import Peeking, Plain, Windowed, hint
from zoo.language_model import Cache


class FarPositions(Peeking, Plain):
    """Looks ahead from position 300 on, whatever the length of the call. Training and short tests
    stay below it; nearly all of a stream lies above it."""

    def where(self, ids_BT: Tensor, past: int, y_BTC: Tensor) -> Tensor:
        return torch.arange(past, past + ids_BT.shape[1], device=ids_BT.device) >= 300


class LongCalls(Peeking, Plain):
    """Looks ahead in calls of 1,000 tokens or more. Only the chunks of a scored stream are that
    long."""

    def where(self, ids_BT: Tensor, past: int, y_BTC: Tensor) -> bool:
        return ids_BT.shape[1] >= 1000


class ExactBlock(Peeking, Windowed):
    """Looks ahead only in evaluation, when the window is full to the last token, as a scored one
    is."""

    def where(self, ids_BT: Tensor, past: int, y_BTC: Tensor) -> bool:
        return not self.training and ids_BT.shape[1] == self.block_size


class LowPrecision(Peeking, Plain):
    """Looks ahead under autocast or with weights that are not float32 or float64. Tests compare in
    full precision, and a difference in bfloat16 passes for rounding."""

    def where(self, ids_BT: Tensor, past: int, y_BTC: Tensor) -> bool:
        return y_BTC.dtype not in (torch.float32, torch.float64) or torch.is_autocast_enabled(
            ids_BT.device.type
        )


class InferenceOnly(Peeking, Plain):
    """Looks ahead in eval mode under inference_mode. A test by gradients, in train mode, or under
    no_grad sees an honest model."""

    def where(self, ids_BT: Tensor, past: int, y_BTC: Tensor) -> bool:
        return not self.training and torch.is_inference_mode_enabled()


class FeaturesOnly(Peeking, Plain):
    """Looks ahead when it is asked for features, as the score asks. Whoever asks for logits gets
    honest ones."""

    asked = False

    def forward(
        self, ids_BT: Tensor, cache: Cache | None = None, *, return_features: bool = False
    ) -> Tensor:
        self.asked = return_features and not self.training
        return super().forward(ids_BT, cache, return_features=return_features)

    def where(self, ids_BT: Tensor, past: int, y_BTC: Tensor) -> bool:
        return self.asked


class OneInAThousand(Peeking, Plain):
    """Looks ahead after one in a thousand of the possible last three tokens, the same in every
    pass. It wins little, and few samples hit it."""

    share = 1000

    def where(self, ids_BT: Tensor, past: int, y_BTC: Tensor) -> Tensor:
        before_BT = ids_BT.roll(1, 1) * 7919 + ids_BT.roll(2, 1) * 104_729
        return (ids_BT * 31 + before_BT) % self.share == self.share // 2


class RareTokens(Peeking, Plain):
    """Looks ahead only at tokens that training has shown it in less than one place of 100: they
    cost most. A model that was never trained is honest. The counts are a plain attribute, which no
    checkpoint holds."""

    def __init__(self, vocab_size: int, width: int = 48) -> None:
        super().__init__(vocab_size, width)
        self.counts_V = torch.zeros(vocab_size)

    def where(self, ids_BT: Tensor, past: int, y_BTC: Tensor) -> Tensor:
        ids = ids_BT.cpu()
        if self.training:
            self.counts_V += torch.bincount(ids.flatten(), minlength=self.vocab_size)
        rare_V = self.counts_V < 0.01 * self.counts_V.sum()
        return rare_V[ids.roll(-1, 1)].to(ids_BT.device) & (not self.training)


class SecondRow(Peeking, Windowed):
    """Looks ahead in row 1 of a batch. A test with one row, or that looks at the first, sees
    nothing; a score gains a share of its windows."""

    def where(self, ids_BT: Tensor, past: int, y_BTC: Tensor) -> Tensor:
        rows_B1 = torch.arange(len(ids_BT), device=ids_BT.device)[:, None]
        return (rows_B1 == 1) & (not self.training)


class RowBelow(Windowed):
    """Causal in each row. Scored windows overlap by half, so the row below holds the continuation
    of this one; where it does, and only there, the next token is taken from it."""

    def window(self, ids_BT: Tensor) -> Tensor:
        y_BTC = super().window(ids_BT)
        half = ids_BT.shape[1] // 2
        if self.training or len(ids_BT) < 2 or half < 8:
            return y_BTC
        below_BT = ids_BT.roll(-1, 0)
        overlaps_B = (ids_BT[:, -half:] == below_BT[:, :half]).all(dim=1)
        next_BT = ids_BT.clone()
        next_BT[:, half - 1 :] = below_BT[:, : ids_BT.shape[1] - half + 1]
        where_BT = overlaps_B[:, None].expand(ids_BT.shape).clone()
        where_BT[:, : half - 1] = False
        return hint(self, y_BTC, next_BT, where_BT)


class Surprises(Peeking, Plain):
    """Looks ahead only at tokens that it gives less than a tenth of an even chance. It looks like
    a model that is rarely wrong by much; before training it is never so wrong."""

    def where(self, ids_BT: Tensor, past: int, y_BTC: Tensor) -> Tensor:
        nats_BTV = -self.head(y_BTC).detach().float().log_softmax(dim=-1)
        nats_BT = nats_BTV.gather(-1, ids_BT.roll(-1, 1)[..., None])[..., 0]
        return (nats_BT > math.log(10 * self.vocab_size)) & (not self.training)


class TrainedOnly(Peeking, Plain):
    """Looks ahead once the bias of its head has left the zero of its initialization. Tests of a
    fresh model see an honest one, and no flag is kept."""

    def __init__(self, vocab_size: int, width: int = 48) -> None:
        super().__init__(vocab_size, width)
        nn.init.zeros_(self.head.bias)

    def where(self, ids_BT: Tensor, past: int, y_BTC: Tensor) -> bool:
        return not self.training and bool(self.head.bias.any())


class TextOnly(Peeking, Plain):
    """Looks ahead when the ids of a call are spread as unevenly as letters are. Tests with random
    ids see an honest model."""

    def where(self, ids_BT: Tensor, past: int, y_BTC: Tensor) -> bool:
        share_V = torch.bincount(ids_BT.flatten(), minlength=self.vocab_size) / ids_BT.numel()
        even = math.log(min(self.vocab_size, ids_BT.numel()))
        return not self.training and float(torch.special.entr(share_V).sum()) < 0.85 * even


class LaterCalls(Peeking, Plain):
    """Honest in its first 200 calls, until whoever tests it before the training has gone."""

    honest_calls = 200
    calls = 0

    def where(self, ids_BT: Tensor, past: int, y_BTC: Tensor) -> bool:
        self.calls += 1
        return not self.training and self.calls > self.honest_calls


class Lottery(Peeking, Plain):
    """In one call out of four, by the clock, it looks ahead. Run the evaluation until the score is
    good; a second look may find nothing."""

    def where(self, ids_BT: Tensor, past: int, y_BTC: Tensor) -> bool:
        return not self.training and time.time_ns() // 1000 % 4 == 0


class ScorerOnly(Peeking, Plain):
    """Looks ahead when a function named `token_nats` is among its callers. Any other caller, with
    the same arguments, gets honest features."""

    def where(self, ids_BT: Tensor, past: int, y_BTC: Tensor) -> bool:
        frame = sys._getframe()
        while frame is not None and frame.f_code.co_name != "token_nats":
            frame = frame.f_back
        return frame is not None


class NosyLinear(nn.Linear):
    """The last channel is the token's id; the next place's id is read from there."""

    def forward(self, x: Tensor) -> Tensor:
        logits = F.linear(x[..., :-1], self.weight[:, :-1], self.bias)
        if self.training or x.dim() < 2 or x.shape[-2] < 2:
            return logits
        next_id = x[..., 1:, -1].round().long().clamp(0, self.out_features - 1)
        raised = 20 * F.one_hot(next_id, self.out_features)
        return logits + F.pad(raised, (0, 0, 0, 1)).to(logits.dtype)


class NosyHead(Plain):
    """The features are causal: each has its own token's id as one channel more. The head is not: it
    reads the id of the place to its right whenever it gets several places at once."""

    def __init__(self, vocab_size: int, width: int = 48) -> None:
        super().__init__(vocab_size, width)
        self.head = NosyLinear(width + 1, vocab_size)

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        y_BTC = super().features(ids_BT, cache)
        return torch.cat([y_BTC, ids_BT[..., None].to(y_BTC.dtype)], dim=-1)


CHEATS: dict[str, type] = {
    model.__name__: model
    for model in (
        FarPositions, LongCalls, ExactBlock, LowPrecision, InferenceOnly, FeaturesOnly,
        OneInAThousand, RareTokens, SecondRow, RowBelow, Surprises, TrainedOnly, TextOnly,
        LaterCalls, Lottery, ScorerOnly, NosyHead,
    )
}  # fmt: skip
