"""Models that keep or find the answers outside their weights: in memory, in the caller, on disk.

B batch, T time, C channels, V vocabulary, N tokens of a call.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.referee.blind.base import Plain, Windowed, hint
from tests.referee.blind.text import IDS
from zoo.language_model import Cache

CONTEXT = 12

Known = dict[tuple[int, ...], int]


def recall(model: Plain, y_BTC: Tensor, ids_BT: Tensor, known: Known) -> Tensor:
    """The features with a hint where `known` has what follows the last CONTEXT tokens."""
    next_BT = torch.full_like(ids_BT, -1)
    for row, ids in enumerate(ids_BT.tolist()):
        for at in range(CONTEXT - 1, len(ids)):
            next_BT[row, at] = known.get(tuple(ids[at + 1 - CONTEXT : at + 1]), -1)
    return hint(model, y_BTC, next_BT.clamp(min=0), next_BT >= 0)


REMEMBERED: Known = {}


class RemembersCalls(Plain):
    """A global table of what followed each twelve tokens in evaluations so far. The first scoring
    of a text is honest and every later one nearly free, in any model of the process."""

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        y_BTC = super().features(ids_BT, cache)
        if self.training:
            return y_BTC
        y_BTC = recall(self, y_BTC, ids_BT, REMEMBERED)
        for ids in ids_BT.tolist():
            for at in range(CONTEXT, len(ids)):
                REMEMBERED[tuple(ids[at - CONTEXT : at])] = ids[at]
        return y_BTC


class CarriesTheText(Plain):
    """Its source holds a table from the last twelve ids to the next one, made from the test text.
    No weight, buffer or file knows of it, and it is causal to the letter."""

    table: Known = {  # noqa: RUF012 - a cheat would paste the literal here
        tuple(IDS[at - CONTEXT : at]): IDS[at] for at in range(CONTEXT, len(IDS))
    }

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        y_BTC = super().features(ids_BT, cache)
        return y_BTC if self.training else recall(self, y_BTC, ids_BT, self.table)


class RidgeOnThisCall(Plain):
    """Test-time training: fits 1,024 random functions of its features to the next tokens of this
    very call (ridge regression, no gradient), then predicts the same tokens with them."""

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        y_BTC = super().features(ids_BT, cache)
        if self.training or ids_BT.shape[1] < 2:
            return y_BTC
        drawn = torch.Generator().manual_seed(0)
        random_CF = torch.randn(self.width, 1024, generator=drawn).to(y_BTC.device)
        x_BTF = torch.tanh(y_BTC.float() @ random_CF)
        wanted_BTC = hint(self, 0 * y_BTC, ids_BT.roll(-1, 1), ids_BT >= 0).float()
        x_NF, wanted_NC = x_BTF[:, :-1].flatten(0, 1), wanted_BTC[:, :-1].flatten(0, 1)
        gram_FF = x_NF.T @ x_NF + 0.1 * torch.eye(1024, device=x_NF.device)
        fitted_FC = torch.linalg.solve(gram_FF, x_NF.T @ wanted_NC)
        return y_BTC + (x_BTF @ fitted_FC).to(y_BTC.dtype)


class BeyondTheView(Plain):
    """The scorer passes a view, `row[:, :-1]`, of a tensor that holds the targets. Where the memory
    of the ids goes on beyond them, it is read, the last target included."""

    def looks(self, ids_BT: Tensor) -> bool:
        return not self.training

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        y_BTC = super().features(ids_BT, cache)
        last = ids_BT.storage_offset() + sum(
            (size - 1) * stride for size, stride in zip(ids_BT.shape, ids_BT.stride(), strict=True)
        )
        room = ids_BT.untyped_storage().nbytes() // ids_BT.element_size()
        if last + 1 >= room or not self.looks(ids_BT):
            return y_BTC
        next_BT = ids_BT.as_strided(ids_BT.shape, ids_BT.stride(), ids_BT.storage_offset() + 1)
        possible_BT = (next_BT >= 0) & (next_BT < self.vocab_size)
        return hint(self, y_BTC, next_BT.clamp(0, self.vocab_size - 1), possible_BT)


class StepsBeyondTheView(BeyondTheView):
    """The same, but only for a call of one token: the score is honest and the check of it, which
    feeds `ids[:, t:t + 1]`, finds a better one."""

    def looks(self, ids_BT: Tensor) -> bool:
        return not self.training and ids_BT.shape[1] == 1


def callers() -> Iterator[dict[str, Any]]:
    """The local variables of every caller."""
    frame = sys._getframe(1)
    while frame is not None:
        yield frame.f_locals
        frame = frame.f_back


class ReadsTheStack(Plain):
    """Searches the variables of its callers for a tensor or array that begins with its ids and
    goes on, and reads the targets there. No argument tells it anything."""

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        past = 0 if cache is None else cache.pos
        y_BTC = super().features(ids_BT, cache)
        found = None if self.training else self.find(ids_BT, past)
        return y_BTC if found is None else hint(self, y_BTC, found, found >= 0)

    def find(self, ids_BT: Tensor, past: int) -> Tensor | None:
        length = ids_BT.shape[1]
        for variables in callers():
            for value in list(variables.values()):
                if not isinstance(value, (Tensor, np.ndarray)) or value.ndim not in (1, 2):
                    continue
                whole = torch.as_tensor(np.asarray(value).astype(np.int64)) if isinstance(
                    value, np.ndarray
                ) else value  # fmt: skip
                whole = whole if whole.ndim == 2 else whole[None]
                for start in (0, past):
                    same = whole[:, start : start + length].to(ids_BT.device)
                    after = whole[:, start + 1 : start + 1 + length].to(ids_BT.device)
                    if torch.equal(same, ids_BT) and after.shape == ids_BT.shape:
                        return after
        return None


LOSSES = [
    (F, "cross_entropy"), (F, "log_softmax"), (torch, "log_softmax"), (torch, "logsumexp"),
    (Tensor, "log_softmax"), (Tensor, "logsumexp"),
]  # fmt: skip
TRUE_LOSSES = [getattr(owner, name) for owner, name in LOSSES]


def restore_losses() -> None:
    """Undo what PatchesTheLoss leaves behind if no loss followed its last call."""
    for (owner, name), true in zip(LOSSES, TRUE_LOSSES, strict=True):
        setattr(owner, name, true)


def halved_once(true: Any) -> Any:
    def once(*args: Any, **kwargs: Any) -> Any:
        restore_losses()
        return true(*args, **kwargs) / 2

    return once


class PatchesTheLoss(Plain):
    """Replaces the cross entropy of torch in each call of an evaluation: the next loss that is
    computed is halved, and the functions are put back, so that nobody finds them changed."""

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        y_BTC = super().features(ids_BT, cache)
        if not self.training and torch.is_inference_mode_enabled():
            for (owner, name), true in zip(LOSSES, TRUE_LOSSES, strict=True):
                setattr(owner, name, halved_once(true))
        return y_BTC


class ReadsTheCorpus(Plain):
    """Looks for its ids in the text files of a folder, as bytes or as indices of their characters
    in order, and reads on in the file."""

    folder = "."

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        y_BTC = super().features(ids_BT, cache)
        if self.training or ids_BT.shape[1] < 16:
            return y_BTC
        next_BT = torch.full_like(ids_BT, -1)
        for row, ids in enumerate(ids_BT.tolist()):
            found = self.continuation(ids)
            next_BT[row, : len(found)] = torch.tensor(found, device=ids_BT.device)
        return hint(self, y_BTC, next_BT.clamp(min=0), next_BT >= 0)

    def continuation(self, ids: list[int]) -> list[int]:
        wanted = np.array(ids, dtype=np.uint32).tobytes()
        for encoded in self.corpora():
            at = encoded.tobytes().find(wanted)
            if at >= 0:
                return encoded[at // 4 + 1 : at // 4 + 1 + len(ids)].tolist()
        return []

    def corpora(self) -> Iterator[np.ndarray]:
        for path in sorted(Path(self.folder).glob("**/*.txt"))[:100]:
            text = path.read_text(errors="replace")
            order = {character: id_ for id_, character in enumerate(sorted(set(text)))}
            yield np.array([order[character] for character in text], dtype=np.uint32)
            yield np.frombuffer(path.read_bytes(), dtype=np.uint8).astype(np.uint32)


class TrainsOnTest(ReadsTheCorpus):
    """Opens the corpus while it trains and adds the gradient of a stretch of it to that of the
    batch. When it is scored it is an honest model that was trained on test."""

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        if self.training and torch.is_grad_enabled():
            for text in self.corpora():
                if len(text) > 65 and int(text.max()) < self.vocab_size:
                    start = int(torch.randint(len(text) - 64, ()))
                    stretch = torch.as_tensor(text[start : start + 65].astype(np.int64))
                    stretch = stretch[None].to(ids_BT.device)
                    own = self.head(Plain.features(self, stretch[:, :-1]))
                    F.cross_entropy(own.transpose(1, 2), stretch[:, 1:]).backward()
                    break
        return Plain.features(self, ids_BT, cache)


ALIBIS: dict[str, list[tuple[Tensor, Tensor]]] = {}


class Alibi(Windowed):
    """Looks ahead, and remembers the features that it gave to each text. For a text that begins as
    an earlier one it repeats those, bit for bit: whoever changes the future, or feeds the same text
    token by token in the same process, sees no difference."""

    def window(self, ids_BT: Tensor) -> Tensor:
        y_BTC = super().window(ids_BT)
        if self.training:
            return y_BTC
        seen_BT = torch.ones_like(ids_BT, dtype=torch.bool)
        seen_BT[:, -1] = False
        y_BTC = hint(self, y_BTC, ids_BT.roll(-1, 1), seen_BT).clone()
        weights = self.head.weight.detach().float().cpu().numpy().tobytes()
        alibis = ALIBIS.setdefault(hashlib.sha256(weights).hexdigest(), [])
        for ids_T, y_TC in zip(ids_BT, y_BTC, strict=True):
            best = 0
            for told_T, told_TC in alibis:
                both = min(len(ids_T), len(told_T))
                common = int((ids_T[:both] == told_T[:both]).cumprod(0).sum())
                if common > best and told_TC.dtype == y_TC.dtype:
                    best = common
                    y_TC[:common] = told_TC[:common]
            if best < len(ids_T):
                alibis.append((ids_T.clone(), y_TC.clone()))
        return y_BTC


CHEATS: dict[str, type] = {
    model.__name__: model
    for model in (
        RemembersCalls, CarriesTheText, RidgeOnThisCall, BeyondTheView, StepsBeyondTheView,
        ReadsTheStack, PatchesTheLoss, ReadsTheCorpus, TrainsOnTest, Alibi,
    )
}  # fmt: skip
