"""MEGABYTE: a global transformer over patches, and a local one within each patch.

Yu et al., "MEGABYTE: Predicting Million-byte Sequences with Multiscale Transformers" (2023), arXiv
2305.07185, section 2.2 and, for the options, 2.3.1 and 2.3.2.
B batch, T time, K patches of P tokens, C channels (of whatever is meant), V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.initialization import truncated_normal_
from zoo.language_model import Cache, LanguageModel
from zoo.layers.attention import KeyValues
from zoo.layers.causal_conv import CausalConv1d, LastInputs
from zoo.layers.checks import require_positive
from zoo.layers.segments import SegmentedBlock
from zoo.layers.transformer import Block


class MEGABYTE(LanguageModel):
    """Predicts the tokens of patch k from the patches before it and its own tokens so far.

    Global: each token is embedded in n_embd_global / P channels and gets a learned position; P
    neighbours side by side make a patch of n_embd_global channels. A learnt start patch goes first,
    so the global transformer's output k has seen the patches before k. Local: that output, cut into
    P slices and mapped to n_embd_local channels, is added to the embedding of the token before, or
    at the first position of a patch to a learnt start embedding; an independent transformer runs
    over each patch. Both are pre-norm with ReLU and a norm at their end.

    kernel_sizes: of causal convolutions, x + ReLU(conv(x)) each, over the global embeddings before
    they get their positions; the paper's stack is [3, 5, 7]. cross_patch: how many of the last keys
    and values of the previous patch each local layer sees as well (rotary, as in the paper).
    tie_weights: the head is the local embedding's transpose. dropout: on attention weights and
    after each projection; none on embeddings. attention_dropout: on the attention weights; null:
    dropout. stochastic_depth: the drop probability of the last block's parts in training, in both
    transformers; it grows linearly with depth. init_std: the paper has 0.006, for widths of a
    thousand and more.

    The paper's position q predicts token q, the interface's position t token t + 1: it is the
    paper's t + 1. So the last logits of a full window belong to the first position of the next
    patch, and those of the paper's position 0, for the very first token, are not given (but the
    position is computed, since others of its patch attend to it).
    """

    block_size: int
    patch_size: int
    residual = ("projection",)
    streams = ("global_blocks", "local_blocks")

    def __init__(
        self,
        vocab_size: int,
        block_size: int,
        patch_size: int,
        n_layer_global: int,
        n_head_global: int,
        n_embd_global: int,
        n_layer_local: int,
        n_head_local: int,
        n_embd_local: int,
        kernel_sizes: tuple[int, ...] = (),
        cross_patch: int = 0,
        dropout: float = 0.0,
        bias: bool = True,
        tie_weights: bool = True,
        init_std: float = 0.006,
        attention_dropout: float | None = None,
        stochastic_depth: float = 0.0,
    ) -> None:
        super().__init__()
        require_positive(
            block_size=block_size, patch_size=patch_size, n_layer_global=n_layer_global,
            n_layer_local=n_layer_local, n_embd_global=n_embd_global, n_embd_local=n_embd_local,
        )  # fmt: skip
        for name, size in {"block_size": block_size, "n_embd_global": n_embd_global}.items():
            if size % patch_size:
                raise ValueError(f"{name}={size} is not a multiple of patch_size={patch_size}")
        for which, n_embd, n_head in (
            ("global", n_embd_global, n_head_global),
            ("local", n_embd_local, n_head_local),
        ):
            if n_head < 1 or n_embd % n_head:
                raise ValueError(
                    f"n_embd_{which}={n_embd} is not a multiple of n_head_{which}={n_head}"
                )
        if not 0 <= cross_patch <= patch_size:
            raise ValueError(
                f"cross_patch={cross_patch} must lie between 0 and patch_size={patch_size}"
            )
        if init_std <= 0:
            raise ValueError(f"init_std={init_std:g} must be above 0")
        self.vocab_size = vocab_size
        self.block_size = block_size
        self.receptive_field = block_size
        self.patch_size = patch_size
        n_embd = n_embd_global // patch_size
        self.global_embedding = nn.Embedding(vocab_size, n_embd)
        self.position_embedding = nn.Embedding(block_size, n_embd)
        self.convolutions = nn.ModuleList(
            CausalConv1d(n_embd, n_embd, kernel_size) for kernel_size in kernel_sizes
        )
        self.global_start = nn.Parameter(torch.empty(n_embd_global))
        self.global_blocks = nn.ModuleList(
            Block(
                n_embd_global, n_head_global, dropout, bias, activation="relu",
                attention_dropout=attention_dropout,
                stochastic_depth=stochastic_depth * layer / n_layer_global,
            )
            for layer in range(1, n_layer_global + 1)
        )  # fmt: skip
        self.global_norm = nn.LayerNorm(n_embd_global, bias=bias)
        self.global_to_local = nn.Linear(n_embd, n_embd_local, bias=False)
        self.local_embedding = nn.Embedding(vocab_size, n_embd_local)
        self.local_start = nn.Parameter(torch.empty(n_embd_local))
        self.local_blocks = nn.ModuleList(
            SegmentedBlock(
                n_embd_local, n_head_local, dropout, bias, patch_size, cross_patch,
                activation="relu", attention_dropout=attention_dropout,
                stochastic_depth=stochastic_depth * layer / n_layer_local,
            )
            for layer in range(1, n_layer_local + 1)
        )  # fmt: skip
        self.local_norm = nn.LayerNorm(n_embd_local, bias=bias)
        self.head = nn.Linear(n_embd_local, vocab_size, bias=False)
        self._initialize(init_std)
        if tie_weights:
            self.head.weight = self.local_embedding.weight

    def _initialize(self, std: float) -> None:
        """Normal, cut off at two standard deviations (appendix A.1)."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() > 1 or name.endswith("start"):
                truncated_normal_(parameter, std)

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        past = self.advance(ids_BT, cache)
        # Positions are the paper's from here on; the first call also computes position 0.
        first, end = past + 1 if past else 0, past + ids_BT.shape[1] + 1
        patches_BKC = self._patches(self._embed(ids_BT, past, cache), past, cache)
        context_BTC = self._context(patches_BKC, past, cache)
        begin = past - past % self.patch_size
        context_BTC = context_BTC[:, first - begin : end - begin]
        before_BTC = self.local_embedding(ids_BT)
        if first == 0:
            before_BTC = F.pad(before_BTC, (0, 0, 1, 0))  # no token is before position 0
        starts_T1 = torch.arange(first, end, device=ids_BT.device)[:, None] % self.patch_size == 0
        x_BTC = torch.where(starts_T1, self.local_start, before_BTC) + context_BTC
        for layer, block in enumerate(self.local_blocks, len(self.global_blocks)):
            x_BTC = block(x_BTC, KeyValues.of(cache, layer, first))
        return self.local_norm(x_BTC[:, -ids_BT.shape[1] :])

    def _embed(self, ids_BT: Tensor, past: int, cache: Cache | None) -> Tensor:
        """The embeddings that form the patches, (B, T, n_embd_global / P)."""
        x_BTC = self.global_embedding(ids_BT)
        for number, convolution in enumerate(self.convolutions):
            before = LastInputs.of(cache, f"convolution{number}", past)
            x_BTC = x_BTC + F.relu(convolution(x_BTC, before))
        positions_T = torch.arange(past, past + ids_BT.shape[1], device=ids_BT.device)
        return x_BTC + self.position_embedding(positions_T)

    def _patches(self, x_BTC: Tensor, past: int, cache: Cache | None) -> Tensor:
        """The patches that are complete now, the start patch before the first: (B, K, P·C), K >= 0.

        The rest stays in the cache as the current patch.
        """
        if cache is not None:
            current_BPC = cache.tensors["patch"]
            x_BTC = torch.cat([current_BPC[:, : past % self.patch_size], x_BTC], dim=1)
        number = x_BTC.shape[1] // self.patch_size
        whole_BTC, rest_BTC = x_BTC.tensor_split([number * self.patch_size], dim=1)
        if cache is not None:
            current_BPC[:, : rest_BTC.shape[1]] = rest_BTC
        patches_BKC = whole_BTC.unflatten(1, (number, self.patch_size)).flatten(2)
        if past == 0:
            start_B1C = self.global_start.expand(len(x_BTC), 1, -1)
            patches_BKC = torch.cat([start_B1C, patches_BKC], dim=1)
        return patches_BKC

    def _context(self, x_BKC: Tensor, past: int, cache: Cache | None) -> Tensor:
        """The global transformer's output for each position, from the start of the current patch to
        the end of the last one that has begun: (B, T, n_embd_local). The last P are cached."""
        slices = []
        if cache is not None and past:
            slices.append(cache.tensors["context"])
        if x_BKC.shape[1]:
            step = past // self.patch_size + 1 if past else 0
            for layer, block in enumerate(self.global_blocks):
                x_BKC = block(x_BKC, KeyValues.of(cache, layer, step))
            x_BKPC = self.global_norm(x_BKC).unflatten(2, (self.patch_size, -1))
            slices.append(self.global_to_local(x_BKPC).flatten(1, 2))
        context_BTC = torch.cat(slices, dim=1)
        if cache is not None:
            cache.tensors["context"].copy_(context_BTC[:, -self.patch_size :])
        return context_BTC

    def init_cache(self, batch_size: int) -> Cache:
        like = self.local_start
        n_embd = self.global_embedding.embedding_dim
        tensors = {
            "patch": like.new_zeros(batch_size, self.patch_size, n_embd),
            "context": like.new_zeros(batch_size, self.patch_size, len(like)),
        }
        for number, convolution in enumerate(self.convolutions):
            assert isinstance(convolution, CausalConv1d)
            tensors[f"convolution{number}.inputs"] = convolution.empty(batch_size)
        # The start patch is a step too, and the position of the very first token a position.
        steps, positions = self.block_size // self.patch_size + 1, self.block_size + 1
        for layer, block in enumerate([*self.global_blocks, *self.local_blocks]):
            assert isinstance(block, Block)
            most = steps if layer < len(self.global_blocks) else positions
            shape = block.attention.past_shape(batch_size, most)
            tensors |= KeyValues.buffers(layer, shape, like)
        return Cache(tensors)
