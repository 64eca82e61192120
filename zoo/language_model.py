"""The interface every architecture implements, and the one law above the others:
training is decoding with an empty past.

Shape suffixes used in the whole zoo: B batch, T time, C channels, V vocabulary, H heads,
D channels of a head, S keys (past and present), P patch, K patches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Self

import torch
from torch import Tensor, nn

from zoo.initialization import initialize, zero_residual_maps
from zoo.layers.ngrams import ROWS, Ngrams


class Cache:
    """The state of a model after the tokens it has seen; made by `init_cache`, owned by the caller.

    pos: the number of tokens seen.
    tensors: the state by name. The batch is the first axis of each tensor, so that beam search can
        reorder its hypotheses without knowing the architecture.
    place: the number of tokens seen, (1,), in place of `pos`, which then stays as it is: of a model
        with a `fixed_step`. The caller moves it on.
    """

    def __init__(
        self,
        tensors: dict[str, Tensor] | None = None,
        pos: int = 0,
        place: Tensor | None = None,
    ) -> None:
        self.tensors = tensors or {}
        self.pos = pos
        self.place = place

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def select(self, rows: Sequence[int] | Tensor) -> Cache:
        """A new cache that continues the given rows of the batch, in that order. Not with a
        place."""
        assert self.place is None
        index = torch.as_tensor(rows)
        tensors = {
            name: tensor.index_select(0, index.to(tensor.device))
            for name, tensor in self.tensors.items()
        }
        return Cache(tensors, self.pos)


class LanguageModel(nn.Module):
    """A causal language model: ids (B, T) in, logits (B, T, V) out; logits[:, t] predict token t+1.

    There is one forward path. Given a cache, the ids continue the tokens the cache has seen, and
    joined outputs equal those of one call over all the ids.
    """

    vocab_size: int
    block_size: int | None
    """The most tokens, past and present, that a call can hold. None: unbounded."""
    receptive_field: int | None
    """logits[:, t] depend on at most this many last tokens. None: unbounded."""
    unseen: frozenset[int] = frozenset()
    """How far back the tokens within the receptive field are that no logits depend on, as dilated
    convolutions can leave holes. A token is 1 back from its own prediction."""
    patch_size: int | None = None
    """The number of tokens in a patch, counted from the first token. Predictions depend on the
    position in the patch. None: there are no patches."""
    reads_bytes: bool = False
    """Its ids mean bytes: it goes with no tokenizer but `bytes`."""
    head: nn.Module
    """Features (…, C) to logits (…, V), position by position, so that a caller can apply it to a
    few positions at a time. An `nn.Linear` where the last layer is a linear map."""
    residual: tuple[str, ...] = ()
    """The last name parts of the linear maps into a residual stream; (): there is none."""
    streams: tuple[str, ...] = ("",)
    """The submodules with a residual stream of their own; "": the whole model."""
    auxiliary: Mapping[str, float] = MappingProxyType({})
    """The weight of each of its auxiliary losses, by name. Training adds them to its loss, of each
    micro-batch by its share of the step's targets; no score has them. A model that has any takes a
    third argument in `features`: a dict, in which it puts each loss, (), under its name. None:
    nobody asks for them."""
    takes_ngrams: bool = False
    """Its `features` begin with `embed`, so that it can have embeddings of n-grams, too."""
    fixed_step: bool = False
    """Given a cache with a `place`, a call with one token does the same operations, on tensors of
    the same shapes, whatever the place is: it can be compiled, or captured as a CUDA graph."""
    fit: Callable[..., None] | None = None
    """Optional: fit(ids) counts a text, (N,) ids, in place of training steps. The counts are
    buffers, and there are no parameters. fit(ids, marker) counts documents that don't see each
    other, with the id `marker` before, between and after them."""

    def __init__(self) -> None:
        super().__init__()
        self.ngrams: Ngrams | None = None

    def forward(
        self,
        ids_BT: Tensor,
        cache: Cache | None = None,
        *,
        return_features: bool = False,
        losses: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """Logits (B, T, V) for ids (B, T), T >= 1.

        return_features: return the input of the head, (B, T, C), so that the caller can apply the
        head to a few positions at a time. losses: an empty dict for the auxiliary losses.
        Raises ValueError when past and present tokens exceed `block_size`.
        """
        # Not its truth value: torch.compile takes an empty mapping proxy for true.
        wanted = [losses] if len(self.auxiliary) > 0 else []
        features_BTC = self.features(ids_BT, cache, *wanted)
        return features_BTC if return_features else self.head(features_BTC)

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        """The head's input, (B, T, C). Architectures implement it and call `advance` first. Callers
        call the model instead, so that hooks see every pass."""
        raise NotImplementedError(f"{type(self).__name__} has no features")

    def embed(self, ids_BT: Tensor, cache: Cache | None) -> Tensor:
        """The embeddings of the tokens, and of the n-grams that end in them if it has those,
        (B, T, C). For architectures that have a `token_embedding`."""
        assert isinstance(self.token_embedding, nn.Embedding)
        x_BTC: Tensor = self.token_embedding(ids_BT)
        if self.ngrams is None:
            return x_BTC
        return x_BTC + self.ngrams(ids_BT, None if cache is None else cache.tensors)

    def add_ngrams(self, order: int, rows: int | None = None) -> Self:
        """Give it embeddings of n-grams of 2 to `order` tokens (zoo/layers/ngrams.py). They are
        zero, and look further back: its receptive field grows. rows: None: ROWS.

        Raises ValueError for an architecture that can't have them.
        """
        if not self.takes_ngrams:
            raise ValueError(f"ngrams={order}: {type(self).__name__} has no embeddings of n-grams")
        assert isinstance(self.token_embedding, nn.Embedding)
        width = self.token_embedding.embedding_dim
        self.ngrams = Ngrams(self.vocab_size, width, order, rows or ROWS)
        if (field := self.receptive_field) is not None:
            seen = {back for back in range(1, field + 1) if back not in self.unseen}
            seen = {back + more for back in seen for more in range(order)}
            field = min(max(seen), self.block_size or max(seen))
            self.receptive_field = field
            self.unseen = frozenset(range(1, field + 1)) - seen
        return self

    def initialize(self, scheme: str = "default", zero_residual: bool = False) -> Self:
        """Reinitialize the weights by a scheme of zoo.initialization; `default` keeps them.
        zero_residual: set the maps into the residual stream to zero.

        Raises ValueError if the scheme does not fit the model.
        """
        if scheme != "default":
            initialize(self, scheme, self.residual, self.streams)
            if self.ngrams is not None:
                self.ngrams.set_to_zero()
        if zero_residual:
            zero_residual_maps(self, self.residual)
        return self

    def resize(self, saved: Mapping[str, Tensor]) -> None:
        """Called before a saved state_dict is loaded into a model that has `fit`: give the buffers
        whose size the text decides their saved sizes. Raises ValueError for values that no text
        gives."""

    def init_cache(self, batch_size: int) -> Cache:
        """An empty cache."""
        return Cache()

    def positions_of(self, ids_BT: Tensor, cache: Cache | None, past: int) -> Tensor:
        """The present tokens' positions, (T,). past: from `advance`."""
        if cache is not None and cache.place is not None:
            return cache.place
        return torch.arange(past, past + ids_BT.shape[1], device=ids_BT.device)

    def advance(self, ids_BT: Tensor, cache: Cache | None) -> int:
        """Count the tokens of this call in the cache; returns how many came before them."""
        if cache is not None and cache.place is not None:
            assert self.fixed_step
            assert ids_BT.shape[1] == 1
            return cache.pos  # those that look back look at the place
        past, present = cache.pos if cache is not None else 0, ids_BT.shape[1]
        if self.block_size is not None and past + present > self.block_size:
            raise ValueError(
                f"{past} past and {present} present tokens exceed block_size={self.block_size}"
            )
        if cache is not None:
            cache.pos = past + present
        return past
