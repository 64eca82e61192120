"""Recurrent networks: the past is a state of fixed size.

RNN: Elman, "Finding Structure in Time" (1990); as a language model, Mikolov et al. (2010).
GRU: Cho et al. (2014), arXiv 1406.1078, with the reset gate behind the recurrent product, as in
torch and cuDNN. LSTM: Hochreiter & Schmidhuber (1997), with the forget gate of Gers et al. (2000).
B batch, T time, C channels, H hidden units, L layers.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from zoo.language_model import Cache, LanguageModel
from zoo.layers.checks import require_positive
from zoo.layers.dropout import Dropout, widened
from zoo.layers.recurrence import GRULayer, LSTMLayer, RNNLayer


class Recurrent(LanguageModel):
    """n_layer layers of n_hidden units each, in torch's own (on a GPU, cuDNN's) kernel; on a CPU an
    RNN and a GRU are trained by zoo.layers.recurrence.

    The state before the text is zero. dropout: of the embeddings and of each layer's
    outputs, never of the recurrent state (Zaremba et al. 2014, arXiv 1409.2329, section 3.1).
    widen_dropout: widen the layers so that n_hidden units remain on average.
    """

    block_size = None
    receptive_field = None
    takes_ngrams = True
    kernel: type[nn.RNN | nn.GRU | nn.LSTM]
    states: tuple[str, ...] = ("hidden",)
    # torch's CPU kernel for an RNN and a GRU casts in every step: in bf16 a stream takes four times
    # as long, and more. oneDNN's for an LSTM gains from bf16.
    fp32_on_cpu = True

    def __init__(
        self,
        vocab_size: int,
        n_layer: int,
        n_embd: int,
        n_hidden: int,
        dropout: float = 0.0,
        widen_dropout: bool = False,
    ) -> None:
        super().__init__()
        require_positive(n_layer=n_layer, n_embd=n_embd, n_hidden=n_hidden)
        n_hidden = widened(n_hidden, dropout, widen_dropout)
        self.vocab_size = vocab_size
        self.n_hidden = n_hidden
        self.token_embedding = nn.Embedding(vocab_size, n_embd)
        # One kernel per layer: cuDNN's dropout between layers has a random state of its own, so its
        # masks would not follow from (seed, step).
        self.layers = nn.ModuleList(
            self.kernel(n_embd if layer == 0 else n_hidden, n_hidden, batch_first=True)
            for layer in range(n_layer)
        )
        self.dropout = Dropout(dropout)
        self.head = nn.Linear(n_hidden, vocab_size)

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        self.advance(ids_BT, cache)
        x_BTC = self.dropout(self.embed(ids_BT, cache))
        after: list[tuple[Tensor, ...]] = []
        for number, layer in enumerate(self.layers):
            with torch.autocast("cpu", enabled=False) if self.fp32_on_cpu else nullcontext():
                x_BTC, state = layer(x_BTC, self._state(cache, number))
            after.append(state if isinstance(state, tuple) else (state,))
            x_BTC = self.dropout(x_BTC)
        if cache is not None:
            for name, states_1BH in zip(self.states, zip(*after, strict=True), strict=True):
                state_BLH = torch.cat(states_1BH).transpose(0, 1)
                cache.tensors[name] = state_BLH.to(cache.tensors[name].dtype)
        return x_BTC

    def _state(self, cache: Cache | None, layer: int) -> Any:
        """A layer's state for torch: (1, B, H), or a tuple of several."""
        if cache is None:
            return None
        states = tuple(cache.tensors[name][None, :, layer].contiguous() for name in self.states)
        return states if len(states) > 1 else states[0]

    def init_cache(self, batch_size: int) -> Cache:
        """Each state (B, L, H)."""
        shape = (batch_size, len(self.layers), self.n_hidden)
        like = self.token_embedding.weight
        return Cache({name: like.new_zeros(shape) for name in self.states})


class RNN(Recurrent):
    """h[t] = tanh(W x[t] + b + U h[t-1] + c)."""

    kernel = RNNLayer


class GRU(Recurrent):
    """A reset and an update gate for the hidden state."""

    kernel = GRULayer


class LSTM(Recurrent):
    """A cell state with input, forget and output gates, beside the hidden state."""

    kernel = LSTMLayer
    fp32_on_cpu = False
    states = ("hidden", "cell")
