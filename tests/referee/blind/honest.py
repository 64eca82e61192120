"""Honest models that look suspicious. None of them may be refused.

B batch, T time (S the same, as keys), C channels, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.referee.blind.base import Plain, Windowed
from zoo.language_model import Cache


class HugeContext(Windowed):
    """Declares a context of a million tokens, and has it: the mean is over all of them."""

    def __init__(self, vocab_size: int, block_size: int = 1_000_000, width: int = 48) -> None:
        super().__init__(vocab_size, block_size, width)


class FrozenReservoir(Plain):
    """The recurrence is random and stays so: drawn once, frozen, with a buffer of noise that is
    added to every embedding. Only the head learns."""

    def __init__(self, vocab_size: int, width: int = 48) -> None:
        super().__init__(vocab_size, width)
        self.gru.requires_grad_(False)
        self.register_buffer("noise_VC", torch.randn(vocab_size, width))
        with torch.no_grad():
            self.token_embedding.weight += self.noise_VC
        self.token_embedding.requires_grad_(False)


class DecayBag(Plain):
    """A bag of characters with exponential decay, added up in float64. The cache is empty until the
    first call makes it."""

    def __init__(self, vocab_size: int, width: int = 48) -> None:
        super().__init__(vocab_size, width)
        del self.gru
        self.rates_C = nn.Parameter(torch.linspace(-2, 3, width))

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        self.advance(ids_BT, cache)
        x_BTC = self.token_embedding(ids_BT).double()
        keep_C = self.rates_C.double().sigmoid()
        empty_BC = torch.zeros_like(x_BTC[:, 0])
        state_BC = empty_BC if cache is None else cache.tensors.get("bag", empty_BC)
        bags = []
        for x_BC in x_BTC.unbind(1):
            state_BC = keep_C * state_BC + (1 - keep_C) * x_BC
            bags.append(state_BC)
        if cache is not None:
            cache.tensors["bag"] = state_BC
        return torch.stack(bags, dim=1).to(self.head.weight.dtype)

    def init_cache(self, batch_size: int) -> Cache:
        return Cache()


class TokenChoice(Plain):
    """Routed, but causally: each token goes to one of four experts by its own id alone."""

    def __init__(self, vocab_size: int, width: int = 48) -> None:
        super().__init__(vocab_size, width)
        self.experts = nn.ModuleList(nn.Linear(width, width) for _ in range(4))

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        y_BTC = super().features(ids_BT, cache)
        found_BTC = y_BTC
        for number, expert in enumerate(self.experts):
            found_BTC = found_BTC + (ids_BT % 4 == number)[..., None] * expert(y_BTC)
        return found_BTC


class LearnsFromThePast(Windowed):
    """Counts what followed the present token earlier in the window, and predicts by these counts:
    learning while it is scored, from nothing but the past."""

    def __init__(self, vocab_size: int, block_size: int = 128, width: int = 48) -> None:
        super().__init__(vocab_size, block_size, width)
        self.head = nn.Linear(width + vocab_size, vocab_size)

    def window(self, ids_BT: Tensor) -> Tensor:
        y_BTC = super().window(ids_BT)
        after_BTS = ids_BT[:, :, None] == ids_BT.roll(1, 1)[:, None, :]
        past_TS = torch.ones_like(after_BTS[0]).tril()  # key s follows place s - 1, itself before t
        past_TS[:, 0] = False
        one_hot_BSV = nn.functional.one_hot(ids_BT, self.vocab_size).to(y_BTC.dtype)
        counts_BTV = (after_BTS & past_TS).to(y_BTC.dtype) @ one_hot_BSV
        return torch.cat([y_BTC, counts_BTV.log1p()], dim=-1)


class Unigram(Plain):
    """Looks at nothing: the logits are one learnt vector, whatever the text is."""

    receptive_field = 0

    def __init__(self, vocab_size: int, width: int = 48) -> None:
        super().__init__(vocab_size, width)
        del self.gru, self.token_embedding
        self.constant_C = nn.Parameter(torch.randn(width))

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        self.advance(ids_BT, cache)
        return self.constant_C.expand(*ids_BT.shape, -1)

    def init_cache(self, batch_size: int) -> Cache:
        return Cache()


class RunningNormalization(Plain):
    """Normalizes by the mean and deviation over the past of each row, carried in the cache."""

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        past = 0 if cache is None else cache.pos
        y_BTC = super().features(ids_BT, cache)
        sums_BTC = torch.cat([y_BTC, y_BTC.square()], dim=-1).cumsum(dim=1)
        if cache is not None:
            sums_BTC = sums_BTC + cache.tensors["sums"][:, None]
            cache.tensors["sums"] = sums_BTC[:, -1]
        count_T1 = torch.arange(past + 1, past + 1 + y_BTC.shape[1], device=y_BTC.device)[:, None]
        mean_BTC, square_BTC = (sums_BTC / count_T1).chunk(2, dim=-1)
        variance_BTC = (square_BTC - mean_BTC.square()).clamp(min=0)
        return (y_BTC - mean_BTC) / (variance_BTC + 0.1).sqrt()

    def init_cache(self, batch_size: int) -> Cache:
        cache = super().init_cache(batch_size)
        cache.tensors["sums"] = self.head.weight.new_zeros(batch_size, 2 * self.width)
        return cache


HONEST: dict[str, type] = {
    model.__name__: model
    for model in (
        Plain, Windowed, HugeContext, FrozenReservoir, DecayBag, TokenChoice, LearnsFromThePast,
        Unigram, RunningNormalization,
    )
}  # fmt: skip
