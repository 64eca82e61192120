"""Recurrent networks: the past is a state of fixed size.

RNN: Elman, "Finding Structure in Time" (1990); as a language model, Mikolov et al. (2010).
GRU: Cho et al. (2014), arXiv 1406.1078, with the reset gate behind the recurrent product, as in
torch and cuDNN. LSTM: Hochreiter & Schmidhuber (1997), with the forget gate of Gers et al. (2000).
B batch, T time, C channels, H hidden units, L layers.
"""

from __future__ import annotations

from torch import Tensor, nn

from zoo.language_model import Cache, LanguageModel
from zoo.layers.checks import require_positive


class Recurrent(LanguageModel):
    """n_layer layers of n_hidden units each, in torch's own (on a GPU, cuDNN's) kernel.

    The state before the text is zero.
    """

    block_size = None
    receptive_field = None
    kernel: type[nn.RNN | nn.GRU | nn.LSTM]
    layers: nn.RNN | nn.GRU | nn.LSTM
    states: tuple[str, ...] = ("hidden",)

    def __init__(self, vocab_size: int, n_layer: int, n_embd: int, n_hidden: int) -> None:
        super().__init__()
        require_positive(n_layer=n_layer, n_embd=n_embd, n_hidden=n_hidden)
        self.vocab_size = vocab_size
        self.token_embedding = nn.Embedding(vocab_size, n_embd)
        self.layers = self.kernel(n_embd, n_hidden, n_layer, batch_first=True)
        self.head = nn.Linear(n_hidden, vocab_size)

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        self.advance(ids_BT, cache)
        x_BTC = self.token_embedding(ids_BT)
        if cache is None:
            return self.layers(x_BTC)[0]
        # torch wants the layers first, and of several states a tuple.
        before = tuple(cache.tensors[name].transpose(0, 1).contiguous() for name in self.states)
        h_BTH, after = self.layers(x_BTC, before if len(before) > 1 else before[0])
        for name, state_LBH in zip(
            self.states, after if len(before) > 1 else (after,), strict=True
        ):
            cache.tensors[name] = state_LBH.transpose(0, 1).to(x_BTC.dtype)
        return h_BTH

    def init_cache(self, batch_size: int) -> Cache:
        """Each state (B, L, H)."""
        shape = (batch_size, self.layers.num_layers, self.layers.hidden_size)
        like = self.token_embedding.weight
        return Cache({name: like.new_zeros(shape) for name in self.states})


class RNN(Recurrent):
    """h[t] = tanh(W x[t] + b + U h[t-1] + c)."""

    kernel = nn.RNN


class GRU(Recurrent):
    """A gate that resets and one that updates the hidden state."""

    kernel = nn.GRU


class LSTM(Recurrent):
    """A cell state besides the hidden one, with gates for what enters, stays and leaves."""

    kernel = nn.LSTM
    states = ("hidden", "cell")
