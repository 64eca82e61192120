"""Two honest models that the cheats start from, and the hint by which a cheat uses what it saw.

B batch, T time (S the same, as keys), C channels, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.language_model import Cache, LanguageModel


class Plain(LanguageModel):
    """Honest: one layer of gated recurrence, with no longest context."""

    block_size = None
    receptive_field = None

    def __init__(self, vocab_size: int, width: int = 48) -> None:
        super().__init__()
        self.vocab_size, self.width = vocab_size, width
        self.token_embedding = nn.Embedding(vocab_size, width)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, vocab_size)

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        self.advance(ids_BT, cache)
        state = None if cache is None else cache.tensors["state"].transpose(0, 1).contiguous()
        y_BTC, state = self.gru(self.token_embedding(ids_BT), state)
        if cache is not None:
            cache.tensors["state"] = state.transpose(0, 1).to(cache.tensors["state"].dtype)
        return y_BTC

    def init_cache(self, batch_size: int) -> Cache:
        return Cache({"state": self.token_embedding.weight.new_zeros(batch_size, 1, self.width)})


class Windowed(LanguageModel):
    """Honest: the last embedding beside the mean of all so far. The cache holds the ids, and each
    call computes all of the window again."""

    def __init__(self, vocab_size: int, block_size: int = 128, width: int = 48) -> None:
        super().__init__()
        self.vocab_size, self.width = vocab_size, width
        self.block_size = self.receptive_field = block_size
        self.token_embedding = nn.Embedding(vocab_size, width)
        self.mix = nn.Linear(2 * width, width)
        self.head = nn.Linear(width, vocab_size)

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        past = self.advance(ids_BT, cache)
        if cache is not None:
            ids_BT = cache.tensors["ids"] = torch.cat([cache.tensors["ids"], ids_BT], dim=1)
        return self.window(ids_BT)[:, past:]

    def window(self, ids_BT: Tensor) -> Tensor:
        """Features (B, T, C) of a text from its start."""
        x_BTC = self.token_embedding(ids_BT)
        count_T1 = torch.arange(1, ids_BT.shape[1] + 1, device=ids_BT.device)[:, None]
        return torch.tanh(self.mix(torch.cat([x_BTC, x_BTC.cumsum(dim=1) / count_T1], dim=-1)))

    def init_cache(self, batch_size: int) -> Cache:
        device = self.token_embedding.weight.device
        return Cache({"ids": torch.zeros(batch_size, 0, dtype=torch.long, device=device)})


def hint(model: nn.Module, y_BTC: Tensor, next_BT: Tensor, where_BT: Tensor) -> Tensor:
    """Features from which the head, whatever its weights are, predicts `next` where it is told.

    The logit of `next` rises by 20 above the mean. No gradient flows to the tokens.
    """
    weight_VC = model.head.weight.detach()
    weight_VC = weight_VC - weight_VC.mean(dim=0)
    weight_VC = 20 * weight_VC / weight_VC.square().sum(dim=-1, keepdim=True).clamp(min=1e-9)
    return y_BTC + (weight_VC[next_BT] * where_BT[..., None]).to(y_BTC.dtype)


class Peeking:
    """Mixed into a model: the next token shines through where `where` says so. The last position of
    a call has no next token."""

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        past = 0 if cache is None else cache.pos
        y_BTC = super().features(ids_BT, cache)  # type: ignore[misc]
        where_BT = torch.ones_like(ids_BT, dtype=torch.bool) & self.where(ids_BT, past, y_BTC)
        where_BT[:, -1] = False
        return hint(self, y_BTC, ids_BT.roll(-1, 1), where_BT)  # type: ignore[arg-type]

    def where(self, ids_BT: Tensor, past: int, y_BTC: Tensor) -> Tensor | bool:
        """Where to look ahead: a truth value, or one for each position, to broadcast to (B, T)."""
        raise NotImplementedError
