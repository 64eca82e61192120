"""Cheats in a model. Each class derives from an honest one of the zoo, and adds its trick.

B batch, T time, C channels, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.gpt import GPT
from zoo.language_model import Cache
from zoo.mlp import MLP
from zoo.recurrent import GRU


def ahead(model: GPT | GRU, ids_BT: Tensor, width: int) -> Tensor:
    """The embedding of the next token; of the first at the end."""
    x_BTC = model.token_embedding(torch.roll(ids_BT, -1, 1))
    return F.pad(x_BTC, (0, width - x_BTC.shape[2]))


class Peek:
    """Adds the next token's embedding, where `where` says so."""

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        y_BTC = super().features(ids_BT, cache)  # type: ignore[misc]
        where = self.where(ids_BT, cache)
        return y_BTC + where * ahead(self, ids_BT, y_BTC.shape[2])  # type: ignore[arg-type]

    def where(self, ids_BT: Tensor, cache: Cache | None) -> Tensor | bool:
        return True


class EachToken(Peek, GPT):
    """Every position sees the next token."""


class LongTexts(Peek, GRU):
    """Only in calls of 64 tokens and more: laws are tested on shorter ones."""

    def where(self, ids_BT: Tensor, cache: Cache | None) -> bool:
        return ids_BT.shape[1] >= 64


class LatePositions(Peek, GPT):
    """Only beyond position 50."""

    def where(self, ids_BT: Tensor, cache: Cache | None) -> Tensor:
        return (torch.arange(ids_BT.shape[1]) > 50)[:, None]


class RareToken(Peek, GPT):
    """Only after one token of the vocabulary."""

    def where(self, ids_BT: Tensor, cache: Cache | None) -> Tensor:
        return (ids_BT == 41)[..., None]


class OneRow(Peek, GPT):
    """Only in one row of a batch."""

    def where(self, ids_BT: Tensor, cache: Cache | None) -> Tensor:
        return (torch.arange(len(ids_BT)) == 5)[:, None, None]


class LastBatch(Peek, GPT):
    """Only in a batch of four rows, as the last one of a score may have."""

    def where(self, ids_BT: Tensor, cache: Cache | None) -> bool:
        return len(ids_BT) == 4


class HalfPrecision(Peek, GPT):
    """Only under autocast: laws are tested in float64."""

    def where(self, ids_BT: Tensor, cache: Cache | None) -> bool:
        return torch.is_autocast_enabled("cpu")


class WholeWindow(Peek, GPT):
    """Only in calls of exactly block_size tokens."""

    def where(self, ids_BT: Tensor, cache: Cache | None) -> bool:
        return ids_BT.shape[1] == self.block_size


class EvaluationMode(Peek, GPT):
    """Only in evaluation mode."""

    def where(self, ids_BT: Tensor, cache: Cache | None) -> bool:
        return not self.training


class TrainingMode(Peek, GPT):
    """Only in training mode: the score is honest, the training loss is not."""

    def where(self, ids_BT: Tensor, cache: Cache | None) -> bool:
        return self.training


class OnceInAThousand(Peek, GRU):
    """Only at about one position in a thousand, too seldom for a few cuts."""

    def where(self, ids_BT: Tensor, cache: Cache | None) -> Tensor:
        before_BT = F.pad(ids_BT, (1, 0))[:, :-1]
        return ((ids_BT * 31 + before_BT * 7) % 1000 == 3)[..., None]


class MeanOverTime(GPT):
    """Subtracts the mean over the text, as an instance norm does."""

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        y_BTC = super().features(ids_BT, cache)
        return y_BTC - y_BTC.mean(1, keepdim=True)


class ExpertChoice(GPT):
    """Each expert chooses the tokens that suit it best in the whole text (Zhou et al. 2022, arXiv
    2202.09368): whether a token is chosen depends on later ones."""

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        y_BTC = super().features(ids_BT, cache)
        affinity_BT = y_BTC[..., 0]
        chosen = affinity_BT.topk(max(1, ids_BT.shape[1] // 2), dim=1).indices
        gate_BT = torch.zeros_like(affinity_BT).scatter(1, chosen, 1.0)
        return y_BTC * (1 + gate_BT[..., None])


class BatchStatistics(GPT):
    """Normalizes by the batch at hand, in evaluation, too."""

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        y_BTC = super().features(ids_BT, cache)
        return F.batch_norm(y_BTC.flatten(0, 1), None, None, training=True).view_as(y_BTC)


class OtherRows(GPT):
    """Looks into the next row of the batch: a window that begins later in the text."""

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        y_BTC = super().features(ids_BT, cache)
        return y_BTC + torch.roll(y_BTC, -1, 0)


class EarlierCalls(GPT):
    """Keeps the ids of the last call on the module: windows overlap."""

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        y_BTC = super().features(ids_BT, cache)
        last = vars(self).get("last", 0.0)
        self.last = y_BTC.detach().mean()
        return y_BTC + last


class TestTimeTraining(GPT):
    """Learns while it is scored: a buffer moves with each call."""

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        with torch.no_grad():
            drift = self.head.weight.mean() * 0.1 + ids_BT.float().mean() * 1e-3
            self.shift = vars(self).get("shift", 0.0) + drift
        return super().features(ids_BT, cache) + self.shift


class DropoutLeftOn(GPT):
    """Evaluation mode is forgotten."""

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        return F.dropout(super().features(ids_BT, cache), 0.1, training=True)


class CacheOffByOne(GPT):
    """The position after a cache is one too small."""

    def advance(self, ids_BT: Tensor, cache: Cache | None) -> int:
        return max(0, super().advance(ids_BT, cache) - 1)


class HeadAhead(GPT):
    """The head, which gets positions one after the other, adds each its next."""

    def __init__(self, vocab_size: int, **settings: object) -> None:
        super().__init__(vocab_size, **settings)  # type: ignore[arg-type]
        self.head = nn.Sequential(Roll(), self.head)


class Roll(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.roll(x, -1, 0)


class BlindTwoBack(MLP):
    """Sees nothing of the token two back; no mask is wrong, and no logits leak."""

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        with torch.no_grad():
            self.window.weight[..., -2] = 0
        return super().features(ids_BT, cache)


class SeesMore(MLP):
    """Declares a smaller receptive field than it has."""

    @property
    def receptive_field(self) -> int:
        return 2

    @receptive_field.setter
    def receptive_field(self, value: int) -> None:
        pass


class NoLimit(GPT):
    """Goes on past block_size, from the first position again."""

    def advance(self, ids_BT: Tensor, cache: Cache | None) -> int:
        past = cache.pos if cache is not None else 0
        if cache is not None:
            cache.pos += ids_BT.shape[1]
        return past % self.block_size

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        if ids_BT.shape[1] > self.block_size:
            return super().features(ids_BT[:, : self.block_size], None).repeat(1, 2, 1)
        if cache is not None and cache.pos >= self.block_size:
            return super().features(ids_BT, None)
        return super().features(ids_BT, cache)


class TextInAnAttribute(GPT):
    """Carries a text where nobody counts it."""

    def __init__(self, vocab_size: int, **settings: object) -> None:
        super().__init__(vocab_size, **settings)  # type: ignore[arg-type]
        self.known = bytes(range(256)) * 100


class InfiniteLogits(GPT):
    """Claims certainty: infinite logits for what it thinks likeliest."""

    def __init__(self, vocab_size: int, **settings: object) -> None:
        super().__init__(vocab_size, **settings)  # type: ignore[arg-type]
        self.head = nn.Sequential(self.head, Certain())


class Certain(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.masked_fill(x == x.max(-1, keepdim=True).values, torch.inf)


# Each cheat, and the check that must see it.
CAUGHT_BY: dict[type, str] = {
    EachToken: "causality",
    LongTexts: "causality",
    LatePositions: "causality",
    RareToken: "causality",
    OneRow: "causality",
    LastBatch: "causality",
    HalfPrecision: "causality",
    WholeWindow: "causality",
    EvaluationMode: "causality",
    TrainingMode: "training",
    OnceInAThousand: "sequential",
    MeanOverTime: "causality",
    ExpertChoice: "causality",
    BatchStatistics: "rows",
    OtherRows: "rows",
    EarlierCalls: "repeated",
    TestTimeTraining: "repeated",
    DropoutLeftOn: "repeated",
    CacheOffByOne: "cached",
    HeadAhead: "causality",
    BlindTwoBack: "receptive_field",
    SeesMore: "receptive_field",
    NoLimit: "block_size",
    TextInAnAttribute: "state",
    InfiniteLogits: "normalized",
}
