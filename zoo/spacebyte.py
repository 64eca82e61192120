"""SpaceByte: a transformer over bytes, and a wider one that takes a step where a word begins.

Slagle, "SpaceByte: Towards Deleting Tokenization from Large Language Modeling" (2024), arXiv
2404.14408, section 3; what it leaves open is as in the author's code.
B batch, T time, K global steps of a call, C channels, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.language_model import Cache, LanguageModel
from zoo.layers.attention import KeyValues
from zoo.layers.checks import require_positive
from zoo.layers.dropout import Dropout
from zoo.layers.norms import make_norm
from zoo.layers.steps import StepBlock, StepKeyValues, step_places
from zoo.layers.transformer import Block

# Space-like: neither a letter nor a digit of ASCII, nor a byte that continues a character of UTF-8
# (section 3, equation 1).
WORD = {*range(0x30, 0x3A), *range(0x41, 0x5B), *range(0x61, 0x7B), *range(0x80, 0xC0)}
SPACELIKE = tuple(byte for byte in range(256) if byte not in WORD)


class SpaceByte(LanguageModel):
    """n_layer_local blocks over all bytes. Between their first half and the rest, n_layer_global
    wider blocks see the bytes alone at which a global step is due, and add to the stream there.

    A step is due at a space-like byte whose predecessor is not space-like, so that it predicts the
    first byte of a word, and at the first position, as at the paper's begin-of-sequence. The id 256
    is an end marker between documents, and space-like. A window
    has n_global steps at most, and its later words have none (in the paper they are not trained
    on); null: block_size / 4. As many are computed in every window, so that a step costs the same
    whatever the text is.
    local_window: how many last positions the local blocks see; null: all. The paper has
    n_embd_local. receptive_field is then an upper bound.
    spacelike: the bytes that are; null: the paper's.
    dropout: after the embeddings, on attention weights and after each projection.
    Pre-norm, ReLU, learned positions of bytes and of steps, and QK-norm (here RMS norm).

    Raises ValueError for more ids than bytes and a marker.
    """

    block_size: int
    reads_bytes = True
    residual = ("projection",)
    takes_ngrams = True
    spacelike: Tensor

    def __init__(
        self,
        vocab_size: int,
        block_size: int,
        n_layer_global: int,
        n_head_global: int,
        n_embd_global: int,
        n_layer_local: int,
        n_head_local: int,
        n_embd_local: int,
        n_global: int | None = None,
        local_window: int | None = None,
        spacelike: list[int] | None = None,
        dropout: float = 0.0,
        bias: bool = False,
        tie_weights: bool = False,
    ) -> None:
        super().__init__()
        n_global = max(1, block_size // 4) if n_global is None else n_global
        require_positive(
            block_size=block_size, n_layer_global=n_layer_global, n_layer_local=n_layer_local,
            n_embd_local=n_embd_local, n_global=n_global,
        )  # fmt: skip
        if vocab_size > 257:
            raise ValueError(f"SpaceByte reads bytes: {vocab_size} ids are too many")
        if n_embd_local > n_embd_global:
            raise ValueError(f"n_embd_local={n_embd_local} exceeds n_embd_global={n_embd_global}")
        if spacelike is not None and not set(spacelike) <= set(range(256)):
            raise ValueError(f"spacelike={spacelike} are not bytes, 0 to 255")
        self.vocab_size = vocab_size
        self.block_size = block_size
        self.receptive_field = block_size
        self.n_global = n_global
        chosen = {256, *(SPACELIKE if spacelike is None else spacelike)}
        table = torch.tensor([each in chosen for each in range(vocab_size)])
        self.register_buffer("spacelike", table, persistent=False)
        self.token_embedding = nn.Embedding(vocab_size, n_embd_local)
        self.position_embedding = nn.Embedding(block_size, n_embd_local)
        self.step_embedding = nn.Embedding(n_global, n_embd_global)
        self.dropout = Dropout(dropout)
        options: dict[str, Any] = {"activation": "relu", "qk_norm": True}
        self.local_blocks = nn.ModuleList(
            Block(n_embd_local, n_head_local, dropout, bias, band=local_window, **options)
            for _ in range(n_layer_local)
        )
        self.global_blocks = nn.ModuleList(
            StepBlock(n_embd_global, n_head_global, dropout, bias, **options)
            for _ in range(n_layer_global)
        )
        self.norm = make_norm("layer_norm", n_embd_local, bias)
        self.head = nn.Linear(n_embd_local, vocab_size, bias=False)
        self.initialize("gpt2")
        if tie_weights:
            self.head.weight = self.token_embedding.weight

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        past = self.advance(ids_BT, cache)
        positions_T = self.positions_of(ids_BT, cache, past)
        x_BTC = self.embed(ids_BT, cache) + self.position_embedding(positions_T)
        x_BTC = self.dropout(x_BTC)
        middle = len(self.local_blocks) // 2
        for layer, block in enumerate(self.local_blocks):
            if layer == middle:
                x_BTC = x_BTC + self._steps(x_BTC, self._due(ids_BT, past, cache), cache)
            x_BTC = block(x_BTC, KeyValues.of(cache, layer, past))
        return self.norm(x_BTC)

    def _due(self, ids_BT: Tensor, past: int, cache: Cache | None) -> Tensor:
        """Where a global step is due, (B, T)."""
        space_BT = self.spacelike[ids_BT]
        before_B1 = torch.zeros_like(space_BT[:, :1])
        if cache is not None:
            before_B1 = cache.tensors["after_space"][:, None]
            cache.tensors["after_space"] = space_BT[:, -1]
        due_BT = space_BT & ~torch.cat([before_B1, space_BT[:, :-1]], dim=1)
        if past == 0:
            due_BT[:, 0] = True
        return due_BT

    def _steps(self, x_BTC: Tensor, due_BT: Tensor, cache: Cache | None) -> Tensor:
        """What the global blocks add to the stream, (B, T, C); nothing where no step is due."""
        steps_B = due_BT.new_zeros(len(due_BT), dtype=torch.int64)
        if cache is not None:
            if not due_BT.any():
                return torch.zeros_like(x_BTC)
            steps_B = cache.tensors["steps"]
        due_BT = due_BT & (steps_B[:, None] + due_BT.cumsum(1) <= self.n_global)
        most = min(self.n_global, due_BT.shape[1])
        places_BK, real_BK = step_places(due_BT, most)
        number_BK = steps_B[:, None] + torch.arange(most, device=x_BTC.device)
        y_BKC = x_BTC.gather(1, places_BK[:, :, None].expand(-1, -1, x_BTC.shape[2]))
        extra = self.step_embedding.embedding_dim - x_BTC.shape[2]
        y_BKC = F.pad(y_BKC, (extra, 0))
        y_BKC = y_BKC + self.step_embedding(number_BK.clamp(max=self.n_global - 1))
        for layer, block in enumerate(self.global_blocks):
            y_BKC = block(
                y_BKC, StepKeyValues.of_steps(cache, f"global{layer}", number_BK, real_BK)
            )
        if cache is not None:
            cache.tensors["steps"] = steps_B + real_BK.sum(1)
        step_BT1 = (due_BT.cumsum(1) - 1).clamp(min=0)[:, :, None]
        added_BTC = y_BKC[:, :, extra:].gather(1, step_BT1.expand_as(x_BTC))
        return torch.where(due_BT[:, :, None], added_BTC, 0)

    def init_cache(self, batch_size: int) -> Cache:
        like = self.token_embedding.weight
        tensors = {
            "after_space": torch.zeros(batch_size, dtype=torch.bool, device=like.device),
            "steps": torch.zeros(batch_size, dtype=torch.int64, device=like.device),
        }
        for blocks, name, size in (
            (self.local_blocks, "", self.block_size),
            (self.global_blocks, "global", self.n_global),
        ):
            for layer, block in enumerate(blocks):
                assert isinstance(block, Block)
                shape = block.attention.past_shape(batch_size, size)
                tensors |= KeyValues.buffers(f"{name}{layer}", shape, like)
        return Cache(tensors)
