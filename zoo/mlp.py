"""The flattened MLP: the last `context` embeddings side by side, through hidden layers.

Bengio et al., "A Neural Probabilistic Language Model" (JMLR 3, 2003), section 2.
B batch, T time, S time past and present, C channels, H hidden units.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.language_model import Cache, LanguageModel
from zoo.layers.batch_norm import AnyNorm, make_any_norm
from zoo.layers.checks import require_positive
from zoo.layers.dropout import Dropout, widened
from zoo.layers.kaiming import kaiming_
from zoo.layers.window import embed_window, window_cache

Activation = Literal["tanh", "relu", "leaky_relu", "gelu"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "gelu": F.gelu,
}


class MLP(LanguageModel):
    """n_layer hidden layers of n_hidden units over the last `context` tokens, at every position.

    Positions before the text have zero embeddings. bias: of the hidden layers; the output has one.
    norm: before each activation. dropout: after each. widen_dropout: widen the hidden layers so
    that n_hidden units remain on average. direct: add a linear map from the embeddings to the
    logits (Bengio's W, in equation 1).
    """

    block_size = None
    fixed_step = True
    head: nn.Linear

    def __init__(
        self,
        vocab_size: int,
        context: int,
        n_layer: int,
        n_embd: int,
        n_hidden: int,
        activation: Activation = "tanh",
        bias: bool = True,
        norm: AnyNorm | None = None,
        direct: bool = False,
        dropout: float = 0.0,
        widen_dropout: bool = False,
    ) -> None:
        super().__init__()
        require_positive(context=context, n_layer=n_layer, n_embd=n_embd, n_hidden=n_hidden)
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation={activation!r} is not one of {', '.join(ACTIVATIONS)}")
        if norm == "batch_norm" and bias:
            raise ValueError("norm=batch_norm cancels a bias: set bias=false")
        n_hidden = widened(n_hidden, dropout, widen_dropout)
        self.vocab_size = vocab_size
        self.receptive_field = context
        self.context = context
        self.activation = ACTIVATIONS[activation]
        self.direct = direct
        self.token_embedding = nn.Embedding(vocab_size, n_embd)
        # A linear map of the flattened windows is a convolution over the embeddings, without a copy
        # of each embedding for each of its `context` windows.
        self.window = nn.Conv1d(n_embd, n_hidden, context, bias=bias)
        self.hidden = nn.ModuleList(
            nn.Linear(n_hidden, n_hidden, bias=bias) for _ in range(n_layer - 1)
        )
        self.norms = nn.ModuleList(make_any_norm(norm, n_hidden) for _ in range(n_layer))
        self.dropout = Dropout(dropout)
        self.head = nn.Linear(n_hidden + direct * context * n_embd, vocab_size)
        gain = "relu" if activation == "gelu" else activation
        kaiming_((self.window, *self.hidden), self.head, gain)

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        past = self.advance(ids_BT, cache)
        x_BSC = embed_window(self.token_embedding, ids_BT, self.context, past, cache)
        h_BTH = self.window(x_BSC.mT).mT.contiguous()
        h_BTH = self.dropout(self.activation(self.norms[0](h_BTH)))
        for layer, norm in zip(self.hidden, self.norms[1:], strict=True):
            h_BTH = self.dropout(self.activation(norm(layer(h_BTH))))
        if not self.direct:
            return h_BTH
        windows_BTC = x_BSC.unfold(1, self.context, 1).flatten(-2)
        return torch.cat([h_BTH, windows_BTC], dim=-1)

    def init_cache(self, batch_size: int) -> Cache:
        return window_cache(self.token_embedding, batch_size, self.context)
