"""The ladder: from an embedding with a linear head to a full transformer, one part at a time.

The steps of Karpathy's lecture "Let's build GPT" (2023) as the course abarajithan11/nanoGPT takes
them; conf/experiment/ladder_1_bigram.yaml to ladder_9_dropout.yaml climb it. The parts are those of
Vaswani et al. 2017 (arXiv 1706.03762). B batch, T time, S keys past and present, C channels,
H heads, D channels of a head.
"""

from __future__ import annotations

from torch import Tensor, nn

from zoo.language_model import Cache, LanguageModel
from zoo.layers.attention import KeyValues, attend
from zoo.layers.checks import require_positive
from zoo.layers.dropout import Dropout
from zoo.layers.feed_forward import FeedForward
from zoo.roles import joint


class Ladder(LanguageModel):
    """n_layer blocks of n_head heads each; without blocks, an embedding and a linear head.

    projection: a linear map of the concatenated heads. feed_forward: a ReLU layer four times as
    wide after the attention. residual: both add to their input. norm: a layer norm before both and
    before the head. dropout: on the attention weights, after the projection and after the
    feed-forward. attention_dropout: on the attention weights; None: dropout.

    Queries, keys and values have no bias, all other maps do, and the head has weights of its own.
    Initialization is torch's default, as in the course, so the first loss is a little above ln V.
    """

    takes_ngrams = True

    def __init__(
        self,
        vocab_size: int,
        block_size: int,
        n_layer: int,
        n_head: int,
        n_embd: int,
        projection: bool = True,
        feed_forward: bool = True,
        residual: bool = True,
        norm: bool = True,
        dropout: float = 0.0,
        attention_dropout: float | None = None,
    ) -> None:
        super().__init__()
        require_positive(block_size=block_size, n_head=n_head, n_embd=n_embd)
        if n_embd % n_head:
            raise ValueError(f"n_embd={n_embd} is not a multiple of n_head={n_head}")
        self.vocab_size = vocab_size
        self.block_size = block_size
        self.receptive_field = block_size if n_layer else 1
        self.residual = ("projection",) if residual else ()
        self.past_shape = (n_head, block_size, n_embd // n_head)
        self.token_embedding = nn.Embedding(vocab_size, n_embd)
        self.position_embedding = nn.Embedding(block_size, n_embd)
        weights_dropout = dropout if attention_dropout is None else attention_dropout
        self.blocks = nn.ModuleList(
            LadderBlock(
                MultiHead(n_embd, n_head, weights_dropout, projection),
                FeedForward(n_embd, bias=True, activation="relu") if feed_forward else None,
                residual,
                norm,
                dropout,
            )
            for _ in range(n_layer)
        )
        self.norm = nn.LayerNorm(n_embd) if norm else nn.Identity()
        self.head = nn.Linear(n_embd, vocab_size)

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        past = self.advance(ids_BT, cache)
        positions_T = self.positions_of(ids_BT, cache, past)
        x_BTC = self.embed(ids_BT, cache) + self.position_embedding(positions_T)
        for layer, block in enumerate(self.blocks):
            x_BTC = block(x_BTC, KeyValues.of(cache, layer, past))
        return self.norm(x_BTC)

    def init_cache(self, batch_size: int) -> Cache:
        tensors: dict[str, Tensor] = {}
        for layer in range(len(self.blocks)):
            shape = (batch_size, *self.past_shape)
            tensors |= KeyValues.buffers(layer, shape, self.token_embedding.weight)
        return Cache(tensors)


class LadderBlock(nn.Module):
    """Attention, then optional feed-forward, each with optional norm and residual."""

    def __init__(
        self,
        attention: MultiHead,
        feed_forward: FeedForward | None,
        residual: bool,
        norm: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        n_embd = attention.qkv.in_features
        self.residual = residual
        self.attention = attention
        self.attention_norm = nn.LayerNorm(n_embd) if norm else nn.Identity()
        self.feed_forward = feed_forward
        if feed_forward is not None:
            self.feed_forward_norm = nn.LayerNorm(n_embd) if norm else nn.Identity()
        self.dropout = Dropout(dropout)

    def forward(self, x_BTC: Tensor, past: KeyValues | None = None) -> Tensor:
        y_BTC = self.dropout(self.attention(self.attention_norm(x_BTC), past))
        x_BTC = x_BTC + y_BTC if self.residual else y_BTC
        if self.feed_forward is None:
            return x_BTC
        y_BTC = self.dropout(self.feed_forward(self.feed_forward_norm(x_BTC)))
        return x_BTC + y_BTC if self.residual else y_BTC


class MultiHead(nn.Module):
    """Multi-head attention; dropout is on the attention weights."""

    def __init__(self, n_embd: int, n_head: int, dropout: float, projection: bool) -> None:
        super().__init__()
        self.n_head = n_head
        self.dropout = Dropout(dropout)
        maps = [n_embd // n_head] * 3 * n_head
        self.qkv = joint(nn.Linear(n_embd, 3 * n_embd, bias=False), maps)
        self.projection = nn.Linear(n_embd, n_embd) if projection else nn.Identity()

    def forward(self, x_BTC: Tensor, past: KeyValues | None) -> Tensor:
        q_BHTD, k_BHSD, v_BHSD = (
            part.unflatten(-1, (self.n_head, -1)).transpose(1, 2)
            for part in self.qkv(x_BTC).chunk(3, dim=-1)
        )
        if past is not None:
            k_BHSD, v_BHSD = past.extend(k_BHSD, v_BHSD)
        y_BHTD = attend(q_BHTD, k_BHSD, v_BHSD, self.dropout.p if self.training else 0.0)
        return self.projection(y_BHTD.transpose(1, 2).flatten(-2))
