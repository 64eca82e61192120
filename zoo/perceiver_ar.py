"""Perceiver AR: latents at the last positions read a long context once, then attend to each other.

Hawthorne et al., "General-purpose, long-context autoregressive modeling with Perceiver AR" (2022),
arXiv 2202.07765, section 3; details (norms, residuals, squared ReLU) as in the authors' code.
B batch, T time (queries), S keys past and present, C channels, H heads, D channels of a head,
V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.language_model import Cache, LanguageModel
from zoo.layers.attention import KeyValues, attend
from zoo.layers.checks import require_positive
from zoo.layers.dropout import Dropout
from zoo.layers.feed_forward import FeedForward
from zoo.layers.segments import SegmentedBlock
from zoo.roles import joint


class PerceiverAR(LanguageModel):
    """A layer of cross-attention from latents to the context, then n_layer of latents alone.

    The paper puts n_latent latents at the last positions of a window: each starts from its own
    token's embedding, attends to the whole window up to its own position, and then, in n_layer
    causal self-attention layers, to the latents up to itself. Other positions predict nothing.

    Here every position predicts. Positions are cut into groups of n_latent, counted from the
    window's start, and the latents that a position's latent attends to are those of its group. So
    the last group of k·n_latent tokens is the paper's computation on that window, the group before
    it the paper's on a window shorter by n_latent, and so on; one pass computes them all and shares
    the window's keys and values. (Latents that see the n_latent before them, a band, would be as
    causal and all see equally many, but they are not the paper's.) A position early in its group
    has few latents to attend to; with an evaluation stride of n_latent / 2, the paper's, those that
    are scored have half of them at least.

    Differences from the paper: positions are learnt and absolute, as in its ImageNet model, not
    rotary; all groups of a window are trained on, not the last alone.

    context_dropout: the paper's cross-attend dropout. In training, each token of a sequence is
    hidden from all latents and heads with this probability, except from the latent at its own
    position, so that each latent sees at least one token.
    dropout: on attention weights and after each projection. attention_dropout: on the attention
    weights; null: dropout. stochastic_depth: the drop probability of the last layer's parts in
    training; it grows linearly with depth. The cross-attention is never dropped. bias: in linear
    maps and layer norms.
    """

    block_size: int
    residual = ("projection",)
    takes_ngrams = True

    def __init__(
        self,
        vocab_size: int,
        block_size: int,
        n_latent: int,
        n_layer: int,
        n_head: int,
        n_embd: int,
        dropout: float = 0.0,
        context_dropout: float = 0.0,
        bias: bool = True,
        attention_dropout: float | None = None,
        stochastic_depth: float = 0.0,
    ) -> None:
        super().__init__()
        require_positive(block_size=block_size, n_latent=n_latent, n_layer=n_layer, n_embd=n_embd)
        if block_size % n_latent:
            raise ValueError(f"block_size={block_size} is not a multiple of n_latent={n_latent}")
        self.vocab_size = vocab_size
        self.block_size = block_size
        self.receptive_field = block_size
        self.token_embedding = nn.Embedding(vocab_size, n_embd)
        self.position_embedding = nn.Embedding(block_size, n_embd)
        self.latent = nn.Linear(n_embd, n_embd, bias=bias)
        self.read = CrossBlock(n_embd, n_head, dropout, context_dropout, bias, attention_dropout)
        self.blocks = nn.ModuleList(
            SegmentedBlock(
                n_embd, n_head, dropout, bias, n_latent, activation="relu2",
                attention_dropout=attention_dropout,
                stochastic_depth=stochastic_depth * layer / n_layer,
            )
            for layer in range(1, n_layer + 1)
        )  # fmt: skip
        self.norm = nn.LayerNorm(n_embd, bias=bias)
        self.head = nn.Linear(n_embd, vocab_size, bias=bias)
        # As for GPT, so that a comparison of the two compares architectures.
        self.initialize("gpt2")

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        past = self.advance(ids_BT, cache)
        positions_T = self.positions_of(ids_BT, cache, past)
        x_BTC = self.embed(ids_BT, cache) + self.position_embedding(positions_T)
        z_BTC = self.read(self.latent(x_BTC), x_BTC, KeyValues.of(cache, 0, past))
        for layer, block in enumerate(self.blocks, 1):
            z_BTC = block(z_BTC, KeyValues.of(cache, layer, past))
        return self.norm(z_BTC)

    def init_cache(self, batch_size: int) -> Cache:
        shapes = [self.read.past_shape(batch_size, self.block_size)]
        for block in self.blocks:
            assert isinstance(block, SegmentedBlock)
            shapes.append(block.attention.past_shape(batch_size, self.block_size))
        like = self.token_embedding.weight
        layers = (KeyValues.buffers(layer, shape, like) for layer, shape in enumerate(shapes))
        return Cache({name: buffer for layer in layers for name, buffer in layer.items()})


class CrossBlock(nn.Module):
    """A pre-norm block whose queries come from the latents, keys and values from the context."""

    def __init__(
        self,
        n_embd: int,
        n_head: int,
        dropout: float,
        context_dropout: float,
        bias: bool,
        attention_dropout: float | None = None,
    ) -> None:
        super().__init__()
        if n_head < 1 or n_embd % n_head:
            raise ValueError(f"n_embd={n_embd} is not a multiple of n_head={n_head}")
        if not 0 <= context_dropout < 1:
            raise ValueError(f"context_dropout={context_dropout:g} must be in [0, 1)")
        self.n_head = n_head
        self.context_dropout = context_dropout
        self.attention_dropout = dropout if attention_dropout is None else attention_dropout
        self.latent_norm = nn.LayerNorm(n_embd, bias=bias)
        self.context_norm = nn.LayerNorm(n_embd, bias=bias)
        maps = [n_embd // n_head] * n_head
        self.query = joint(nn.Linear(n_embd, n_embd, bias=bias), maps)
        self.key_value = joint(nn.Linear(n_embd, 2 * n_embd, bias=bias), 2 * maps)
        self.projection = nn.Linear(n_embd, n_embd, bias=bias)
        self.feed_forward_norm = nn.LayerNorm(n_embd, bias=bias)
        self.feed_forward = FeedForward(n_embd, bias, "relu2")
        self.dropout = Dropout(dropout)

    def past_shape(self, batch_size: int, block_size: int) -> tuple[int, int, int, int]:
        """The shape (B, H, S, D) of the keys and values kept of the past."""
        n_embd = self.query.in_features
        return batch_size, self.n_head, block_size, n_embd // self.n_head

    def forward(self, z_BTC: Tensor, x_BTC: Tensor, past: KeyValues | None = None) -> Tensor:
        """z: the latents; x: the context's new tokens, at the same positions."""
        q_BHTD, k_BHSD, v_BHSD = (
            part.unflatten(-1, (self.n_head, -1)).transpose(1, 2)
            for part in (
                self.query(self.latent_norm(z_BTC)),
                *self.key_value(self.context_norm(x_BTC)).chunk(2, dim=-1),
            )
        )
        if past is not None:
            k_BHSD, v_BHSD = past.extend(k_BHSD, v_BHSD)
        dropout = self.attention_dropout if self.training else 0.0
        if self.training and self.context_dropout:
            mask_B1TS = self._selection(len(z_BTC), z_BTC.shape[1], k_BHSD.shape[2], z_BTC.device)
            y_BHTD = F.scaled_dot_product_attention(q_BHTD, k_BHSD, v_BHSD, mask_B1TS, dropout)
        else:
            y_BHTD = attend(q_BHTD, k_BHSD, v_BHSD, dropout)
        z_BTC = z_BTC + self.dropout(self.projection(y_BHTD.transpose(1, 2).flatten(-2)))
        return z_BTC + self.dropout(self.feed_forward(self.feed_forward_norm(z_BTC)))

    def _selection(self, batch: int, time: int, keys: int, device: torch.device) -> Tensor:
        """Which of the S tokens each of the last T may see: (B, 1, T, S), another choice for each
        sequence, the same for all of its latents and heads."""
        earlier_TS = torch.ones(time, keys, dtype=torch.bool, device=device).tril(keys - time - 1)
        own_TS = torch.ones_like(earlier_TS).tril(keys - time) & ~earlier_TS
        kept_BS = torch.rand(batch, keys, device=device) >= self.context_dropout
        return (earlier_TS & kept_BS[:, None, None]) | own_TS
