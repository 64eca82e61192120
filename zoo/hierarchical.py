"""The hierarchical network: neighbours are joined in pairs, layer by layer, into a tree.

Karpathy's lecture "Building makemore Part 5: Building a WaveNet" (2022): the dilated convolutions
of van den Oord et al. 2016 (arXiv 1609.03499) without gates, residual stream and skips.
B batch, T time, S time past and present, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.language_model import Cache, LanguageModel
from zoo.layers.batch_norm import AnyNorm, make_any_norm
from zoo.layers.checks import require_positive
from zoo.layers.dropout import Dropout
from zoo.layers.kaiming import kaiming_
from zoo.layers.window import embed_window, window_cache


class Hierarchical(LanguageModel):
    """Each prediction comes from the root of a binary tree, n_layer high, over the embeddings of
    the last 2^n_layer tokens. All nodes of a layer share a linear map and a tanh.

    Trees of neighbouring positions share nodes, and each node is computed once: a layer is a
    convolution of kernel size 2 and dilation 1, 2, 4 and so on. Positions before the text have zero
    embeddings; nodes above them are computed like all others.
    bias: of the layers; the output has one. norm: before each tanh. dropout: after each.
    """

    block_size = None
    fixed_step = True
    receptive_field: int
    head: nn.Linear

    def __init__(
        self,
        vocab_size: int,
        n_layer: int,
        n_embd: int,
        n_hidden: int,
        bias: bool = True,
        norm: AnyNorm | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        require_positive(n_layer=n_layer, n_embd=n_embd, n_hidden=n_hidden)
        if norm == "batch_norm" and bias:
            raise ValueError("norm=batch_norm cancels a bias: set bias=false")
        self.vocab_size = vocab_size
        self.receptive_field = 2**n_layer
        self.token_embedding = nn.Embedding(vocab_size, n_embd)
        widths = [n_embd, *[n_hidden] * (n_layer - 1)]
        layers = [nn.Linear(2 * width, n_hidden, bias=bias) for width in widths]
        self.layers = nn.ModuleList(layers)
        self.norms = nn.ModuleList(make_any_norm(norm, n_hidden) for _ in range(n_layer))
        self.dropout = Dropout(dropout)
        self.head = nn.Linear(n_hidden, vocab_size)
        kaiming_(layers, self.head, "tanh")

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        past = self.advance(ids_BT, cache)
        x_BSC = embed_window(self.token_embedding, ids_BT, self.receptive_field, past, cache)
        for height, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            # Faster than a convolution of few channels.
            pairs_BSC = torch.cat([x_BSC[:, : -(2**height)], x_BSC[:, 2**height :]], dim=-1)
            x_BSC = self.dropout(torch.tanh(norm(layer(pairs_BSC))))
        return x_BSC

    def init_cache(self, batch_size: int) -> Cache:
        return window_cache(self.token_embedding, batch_size, self.receptive_field)
