"""H-Net: a transformer over chunks of the text, whose boundaries are learnt with everything else.

Hwang, Wang & Gu, "Dynamic Chunking for End-to-End Hierarchical Sequence Modeling" (2025), arXiv
2507.07955, section 2, with one stage; what it leaves open is as in the authors' code.
B batch, T time, K chunks of a call, C channels, V vocabulary.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.language_model import Cache, LanguageModel
from zoo.layers.attention import KeyValues
from zoo.layers.checks import require_positive
from zoo.layers.dropout import Dropout
from zoo.layers.matrix_memory import decaying_memory
from zoo.layers.norms import make_norm
from zoo.layers.steps import StepBlock, StepKeyValues, step_places
from zoo.mamba2 import Mamba2Block

SUREST = 1 - 1e-4  # a chunk is always smoothed a little, so that its logarithm is finite


class HNet(LanguageModel):
    """Mamba-2 blocks encode the tokens, transformer blocks, the main network, work on chunks of
    them, and Mamba-2 blocks decode.

    A chunk begins at the first token, and where the router gives that a probability of a half or
    more. The main network sees the encoding of a chunk's first token alone. What it makes of it is
    averaged with the chunks before (smooth), and added to the encodings of all tokens of the chunk.

    chunk_size: the tokens of a chunk that the ratio loss aims at, N in the paper.
    ratio_weight: of that loss; 0: there is none.
    n_chunk: the most chunks of a window; the tokens behind go on with the last one. As many are
    computed in every window, so that a step costs the same whatever the router says, and no row
    depends on another. null: one and a half times what chunk_size gives; block_size: no bound, as
    in the paper.
    n_state, n_head_channels, expand, kernel_size: see Mamba2. The transformer has rotary
    positions, SwiGLU and RMS norm, and is widened by a learnt vector.
    dropout: of the embeddings, on attention weights and of each addition to a residual stream.
    """

    block_size: int
    residual = ("projection",)
    takes_ngrams = True
    streams = ("encoder", "main", "decoder")

    def __init__(
        self,
        vocab_size: int,
        block_size: int,
        n_layer_main: int,
        n_head_main: int,
        n_embd_main: int,
        n_layer_encoder: int,
        n_layer_decoder: int,
        n_embd: int,
        n_head_channels: int,
        n_state: int = 64,
        expand: int = 2,
        kernel_size: int = 4,
        chunk_size: float = 6.0,
        n_chunk: int | None = None,
        ratio_weight: float = 0.03,
        dropout: float = 0.0,
        tie_weights: bool = False,
    ) -> None:
        super().__init__()
        if not 1 < chunk_size < math.inf:
            raise ValueError(f"chunk_size={chunk_size:g} must be above 1")
        n_chunk = math.ceil(1.5 * block_size / chunk_size) if n_chunk is None else n_chunk
        require_positive(
            block_size=block_size, n_layer_main=n_layer_main, n_layer_encoder=n_layer_encoder,
            n_layer_decoder=n_layer_decoder, n_embd=n_embd, n_head_channels=n_head_channels,
            n_state=n_state, expand=expand, n_chunk=n_chunk,
        )  # fmt: skip
        if expand * n_embd % n_head_channels:
            raise ValueError(
                f"expand·n_embd={expand * n_embd} is not a multiple of "
                f"n_head_channels={n_head_channels}"
            )
        if n_embd >= n_embd_main:
            raise ValueError(f"n_embd={n_embd} must be below n_embd_main={n_embd_main}")
        if ratio_weight < 0:
            raise ValueError(f"ratio_weight={ratio_weight:g} must be at least 0")
        self.vocab_size = vocab_size
        self.block_size = block_size
        self.receptive_field = block_size
        self.chunk_size = chunk_size
        self.n_chunk = min(n_chunk, block_size)
        if ratio_weight:
            self.auxiliary = {"ratio": ratio_weight}
        self.token_embedding = nn.Embedding(vocab_size, n_embd)
        self.dropout = Dropout(dropout)

        def mamba2(n_layer: int) -> nn.ModuleList:
            sizes = (n_embd, expand * n_embd, n_head_channels, n_state, kernel_size, dropout)
            return nn.ModuleList(Mamba2Block(*sizes) for _ in range(n_layer))

        self.encoder = mamba2(n_layer_encoder)
        self.encoder_norm = make_norm("rms_norm", n_embd, bias=False)
        self.router = Router(n_embd)
        self.widening = nn.Parameter(torch.zeros(n_embd_main - n_embd))
        self.main = nn.ModuleList(
            StepBlock(
                n_embd_main, n_head_main, dropout, bias=False, activation="swiglu",
                norm="rms_norm", rotary_theta=10000.0,
            )
            for _ in range(n_layer_main)
        )  # fmt: skip
        self.main_norm = make_norm("rms_norm", n_embd_main, bias=False)
        self.skip = nn.Linear(n_embd, n_embd, bias=False)
        self.decoder = mamba2(n_layer_decoder)
        self.norm = make_norm("rms_norm", n_embd, bias=False)
        self.head = nn.Linear(n_embd, vocab_size, bias=False)
        self.initialize("gpt2")
        for each in (self.router.query, self.router.key):
            nn.init.eye_(each.weight)
        nn.init.zeros_(self.skip.weight)
        if tie_weights:
            self.head.weight = self.token_embedding.weight

    def features(
        self,
        ids_BT: Tensor,
        cache: Cache | None = None,
        losses: dict[str, Tensor] | None = None,
    ) -> Tensor:
        past = self.advance(ids_BT, cache)
        x_BTC = self.dropout(self.embed(ids_BT, cache))
        for layer, block in enumerate(self.encoder):
            x_BTC = block(x_BTC, cache, f"encoder{layer}", past)
        x_BTC = self.encoder_norm(x_BTC)
        p_BT = self.router(x_BTC, cache, past)
        if losses is not None:
            losses["ratio"] = ratio_loss(p_BT, self.chunk_size)
        x_BTC = self._chunks(x_BTC, p_BT, cache) + self.skip(x_BTC)
        for layer, block in enumerate(self.decoder):
            x_BTC = block(x_BTC, cache, f"decoder{layer}", past)
        return self.norm(x_BTC)

    def _chunks(self, x_BTC: Tensor, p_BT: Tensor, cache: Cache | None) -> Tensor:
        """What the main network says of the chunk that each token is in, (B, T, C)."""
        began_B = p_BT.new_zeros(len(p_BT), dtype=torch.int64)
        z_BKC = torch.zeros_like(x_BTC[:, :1])  # of the chunk before the call, then of its own
        if cache is not None:
            began_B, z_BKC = cache.tensors["chunks"], cache.tensors["smooth"][:, 0]
        begins_BT = p_BT >= 0.5
        begins_BT = begins_BT & (began_B[:, None] + begins_BT.cumsum(1) <= self.n_chunk)
        if cache is None or begins_BT.any():
            own_BKC = self._main_network(x_BTC, p_BT, begins_BT, began_B, cache)
            z_BKC = torch.cat([z_BKC, own_BKC], dim=1)
        chunk_BT1 = begins_BT.cumsum(1)[:, :, None]
        z_BTC = z_BKC.gather(1, chunk_BT1.expand(-1, -1, z_BKC.shape[2]))
        return straight_through(p_BT, begins_BT)[:, :, None] * z_BTC

    def _main_network(
        self,
        x_BTC: Tensor,
        p_BT: Tensor,
        begins_BT: Tensor,
        began_B: Tensor,
        cache: Cache | None,
    ) -> Tensor:
        """The call's chunks, smoothed, (B, K, C); behind a row's last chunk it is repeated."""
        most = min(self.n_chunk, x_BTC.shape[1])
        places_BK, real_BK = step_places(begins_BT, most)
        number_BK = began_B[:, None] + torch.arange(most, device=x_BTC.device)
        y_BKC = x_BTC.gather(1, places_BK[:, :, None].expand(-1, -1, x_BTC.shape[2]))
        wider_BKC = self.widening.expand(*places_BK.shape, -1)
        y_BKC = torch.cat([y_BKC, wider_BKC.to(y_BKC.dtype)], dim=2)
        for layer, block in enumerate(self.main):
            y_BKC = block(y_BKC, StepKeyValues.of_steps(cache, f"main{layer}", number_BK, real_BK))
        y_BKC = self.main_norm(y_BKC)[:, :, : x_BTC.shape[2]]
        p_BK = p_BT.gather(1, places_BK).clamp(max=SUREST).where(real_BK, 0)
        y_BKC, state = smooth(y_BKC, p_BK, None if cache is None else cache.tensors["smooth"])
        if cache is not None and state is not None:
            cache.tensors["chunks"] = began_B + real_BK.sum(1)
            cache.tensors["smooth"] = state
        return y_BKC

    def init_cache(self, batch_size: int) -> Cache:
        """The Mamba-2 blocks' states, the main network's keys and values, and of each row the last
        token's key for the router, the number of chunks, and the last chunk, smoothed."""
        like = self.token_embedding.weight
        n_embd = like.shape[1]
        tensors = {
            "router.key": like.new_zeros(batch_size, n_embd),
            "chunks": torch.zeros(batch_size, dtype=torch.int64, device=like.device),
            "smooth": like.new_zeros(batch_size, 1, 1, n_embd),
        }
        for name, blocks in (("encoder", self.encoder), ("decoder", self.decoder)):
            for layer, block in enumerate(blocks):
                assert isinstance(block, Mamba2Block)
                tensors |= block.empty(f"{name}{layer}", batch_size)
        for layer, block in enumerate(self.main):
            assert isinstance(block, StepBlock)
            shape = block.attention.past_shape(batch_size, self.n_chunk)
            tensors |= KeyValues.buffers(f"main{layer}", shape, like)
        return Cache(tensors)


class Router(nn.Module):
    """The probability (B, T) that a chunk begins at t, (1 - cos(query[t], key[t-1])) / 2, and 1 at
    the first token (equation 4): high where an encoding differs from the one before.

    Both maps begin as the identity. Computed in at least fp32: it decides.
    """

    def __init__(self, n_embd: int) -> None:
        super().__init__()
        self.query = nn.Linear(n_embd, n_embd, bias=False)
        self.key = nn.Linear(n_embd, n_embd, bias=False)

    def forward(self, x_BTC: Tensor, cache: Cache | None, past: int) -> Tensor:
        query_BTC, key_BTC = self.query(x_BTC), self.key(x_BTC)
        before_B1C = torch.zeros_like(key_BTC[:, :1])
        if cache is not None:
            before_B1C = cache.tensors["router.key"][:, None].to(key_BTC.dtype)
            cache.tensors["router.key"] = key_BTC[:, -1]
        before_BTC = torch.cat([before_B1C, key_BTC[:, :-1]], dim=1)
        dtype = torch.promote_types(key_BTC.dtype, torch.float32)
        similarity_BT = F.cosine_similarity(query_BTC.to(dtype), before_BTC.to(dtype), dim=-1)
        p_BT = (1 - similarity_BT) / 2
        return F.pad(p_BT[:, 1:], (1, 0), value=1.0) if past == 0 else p_BT


def smooth(y_BKC: Tensor, p_BK: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """z[k] = p[k]·y[k] + (1 - p[k])·z[k-1] (equation 5), and the last of them, (B, 1, 1, C).

    A boundary of which the router is unsure is smoothed away, so that its gradient is small. As in
    the authors' code, it is the recurrence of a state space, here with keys and queries of 1.
    """
    one_B1K1 = torch.ones_like(p_BK)[:, None, :, None]
    added_B1KC = (p_BK[:, :, None] * y_BKC)[:, None]
    # Where rounding makes a probability 1, the logarithm and its gradient are finite all the same.
    log_decay_B1K = (1 - p_BK).clamp(min=1 - SUREST).log()[:, None]
    z_B1KC, state = decaying_memory(one_B1K1, one_B1K1, added_B1KC, log_decay_B1K, state)
    return z_B1KC[:, 0], state


def straight_through(p_BT: Tensor, begins_BT: Tensor) -> Tensor:
    """1, with the gradient of the probability of what was decided (equations 6 and 7): a token
    teaches the router whether it was right to begin a chunk there, or not to."""
    confidence_BT = torch.where(begins_BT, p_BT, 1 - p_BT)
    return 1 + (confidence_BT - confidence_BT.detach())


def ratio_loss(p_BT: Tensor, chunk_size: float) -> Tensor:
    """N/(N-1)·((N-1)·F·G + (1-F)·(1-G)), F the share of tokens at which a chunk begins, G the mean
    probability (equation 10). 1 if both are 1/N; its gradient, that of G, pushes towards it."""
    share, mean = (p_BT >= 0.5).to(p_BT.dtype).mean(), p_BT.mean()
    n = chunk_size
    return n / (n - 1) * ((n - 1) * share * mean + (1 - share) * (1 - mean))
