"""A window that slides over the text: the embeddings that the present depends on.

B batch, T time, S time past and present, C channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.language_model import Cache


def embed_window(
    embedding: nn.Embedding, ids_BT: Tensor, context: int, past: int, cache: Cache | None
) -> Tensor:
    """The embeddings of the present and of the context - 1 tokens before it, (B, S, C); zeros
    before the text. past: how many tokens came before. The cache is moved on."""
    before, seen = context - 1, 0
    if cache is not None and cache.place is not None:
        ids_BS = torch.cat([cache.tensors["ids"], ids_BT], dim=1)
        cache.tensors["ids"] = ids_BS[:, 1:]
        back_S1 = torch.arange(before, -1, -1, device=ids_BT.device)[:, None]
        return embedding(ids_BS).masked_fill(back_S1 > cache.place, 0)
    if cache is not None:
        ids_BS = torch.cat([cache.tensors["ids"], ids_BT], dim=1)
        cache.tensors["ids"] = ids_BS[:, ids_BT.shape[1] :]
        seen = min(past, before)
        ids_BT = ids_BS[:, before - seen :]
    return F.pad(embedding(ids_BT), (0, 0, before - seen, 0))


def window_cache(embedding: nn.Embedding, batch_size: int, context: int) -> Cache:
    """The last context - 1 ids, zeros before the text."""
    device = embedding.weight.device
    return Cache({"ids": torch.zeros(batch_size, context - 1, dtype=torch.int64, device=device)})
