"""Any plain torch module from ids (B, T) to logits (B, T, V), as a model of the zoo.

B batch, T time, V vocabulary.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from zoo.language_model import Cache, LanguageModel
from zoo.layers.checks import require_positive


class Plain(LanguageModel):
    """Wraps `module`, which knows of no cache and is made as module(**settings); where its
    constructor has arguments called vocab_size and block_size, it gets them.

    block_size: the most tokens that a call may hold. The cache holds the ids, and a call computes
    the whole window anew: without a limit, decoding a text of N tokens would cost N² positions.
    receptive_field is block_size, an upper bound. `head` is the identity: the logits are the
    features. An output layer that optimizers should treat as one is marked by the module
    (zoo.roles).

    Raises ValueError if what the module returns are no logits, one position for each token.
    """

    def __init__(
        self, vocab_size: int, block_size: int, module: type[nn.Module], **settings: Any
    ) -> None:
        super().__init__()
        require_positive(vocab_size=vocab_size, block_size=block_size)
        self.vocab_size = vocab_size
        self.block_size = block_size
        self.receptive_field = block_size
        given = {"vocab_size": vocab_size, "block_size": block_size}
        takes = inspect.signature(module).parameters
        self.module = module(**{name: given[name] for name in given if name in takes}, **settings)
        self.head = nn.Identity()
        self._require_logits(torch.zeros(1, min(2, block_size), dtype=torch.int64))

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        past = self.advance(ids_BT, cache)
        if cache is not None:
            ids_BT = torch.cat([cache.tensors["ids"].to(ids_BT.device), ids_BT], dim=1)
            cache.tensors["ids"] = ids_BT
        logits_BTV: Tensor = self.module(ids_BT)
        return logits_BTV[:, past:]

    def init_cache(self, batch_size: int) -> Cache:
        """All ids so far, (B, T)."""
        return Cache({"ids": torch.zeros(batch_size, 0, dtype=torch.int64)})

    @torch.no_grad()
    def _require_logits(self, ids_BT: Tensor) -> None:
        """Without dropout, so that no random numbers are drawn."""
        was_training = self.training
        logits = self.eval().module(ids_BT)
        self.train(was_training)
        name, expected = type(self.module).__name__, (*ids_BT.shape, self.vocab_size)
        if not isinstance(logits, Tensor):
            raise ValueError(
                f"{name} returns a {type(logits).__name__}; from ids (B, T) it should return the "
                "logits (B, T, V) alone"
            )
        if logits.shape != expected:
            raise ValueError(
                f"{name} returns {tuple(logits.shape)} for ids {tuple(ids_BT.shape)}; it should "
                f"return logits {expected}"
            )
