"""Counted n-grams with modified interpolated Kneser-Ney smoothing: the floor that a trained model
has to cross.

Kneser & Ney, "Improved backing-off for M-gram language modeling" (1995); modified and interpolated:
Chen & Goodman, "An empirical study of smoothing techniques for language modeling" (Harvard
TR-10-98, 1998), section 3, with three discounts for each order from the counts of counts (eq. 26).

N positions, C contexts of a position (one for each length), P past ids, G n-grams of one order,
F followers of all contexts of a call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from zoo.language_model import Cache, LanguageModel

ORDERS = range(1, 9)
# Of a count of 1, 2 and more, where the counts of counts give none: KenLM's defaults.
FALLBACK = (0.5, 1.0, 1.5)
PART = 1 << 24  # keys that are sorted at once


class NGram(LanguageModel):
    """Counts in place of parameters: `fit` reads the train text once, and nothing is trained.

    p(w | h) = max(c(h w) - D(c), 0) / c(h) + left(h) p(w | h without its first token). At the
    highest order c are counts; below it, how many different tokens come before h w, where the start
    of the text counts as one. left(h) is the share that the discounts D took. The order below the
    unigrams is 1 / V. With fewer than order - 1 tokens before it, a token is predicted by the order
    that those allow. Until it is fitted the model is uniform.

    Documents, which a marker divides, don't see each other: no n-gram has a marker inside, only at
    its ends. Nothing comes before a document, so what begins with a marker keeps its counts at
    every order, as in KenLM (Heafield et al. 2013, ACL, section 3.1).
    """

    block_size = None

    def __init__(self, vocab_size: int, order: int = 7) -> None:
        super().__init__()
        if order not in ORDERS:
            raise ValueError(f"order={order} must lie between {ORDERS[0]} and {ORDERS[-1]}")
        self.vocab_size, self.order = vocab_size, order
        self.receptive_field = order - 1
        self.head: KneserNey = KneserNey(vocab_size, order)

    def fit(self, ids_N: Tensor, marker: int | None = None) -> None:
        """Count a text, (N,) ids, or documents with this id before, between and after them. Forgets
        what was counted before."""
        self.head.fit(ids_N, marker)

    def resize(self, saved: Mapping[str, Tensor]) -> None:
        limit = self.vocab_size
        for number, table in enumerate(self.head.orders):
            at = f"head.tables.{number}."
            keys_G = saved[f"{at}keys"]
            table.resize(keys_G, saved[f"{at}counts"], saved[f"{at}discounts"], limit)
            limit = len(keys_G) * self.vocab_size

    def init_cache(self, batch_size: int) -> Cache:
        """The last order - 2 ids; -1, which no n-gram has, where there is none yet."""
        past_BP = torch.full((batch_size, max(0, self.order - 2)), -1, dtype=torch.int64)
        return Cache({"past": past_BP})

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        """The ranks of the contexts of 1 to order - 1 tokens that end at each position, (B, T, C)
        int64; -1 for one that the fitted text does not have, or that begins before this text."""
        self.advance(ids_BT, cache)
        present = ids_BT.shape[1]
        if cache is not None:
            past_BP = cache.tensors["past"].to(ids_BT.device)
            ids_BT = torch.cat([past_BP, ids_BT], dim=1)
            cache.tensors["past"] = ids_BT[:, present:]
        ranks_BT = torch.zeros_like(ids_BT)  # of the empty context
        contexts = [ids_BT.new_empty(*ids_BT.shape, 0)[:, -present:]]
        for length, table in enumerate(self.head.orders[:-1]):
            if length:  # the context that ends one token before
                ranks_BT = nn.functional.pad(ranks_BT[:, :-1], (1, 0), value=-1)
            ranks_BT = table.find(ranks_BT * self.vocab_size + ids_BT)
            contexts.append(ranks_BT[:, -present:, None])
        return torch.cat(contexts, dim=-1)


class Followers(NamedTuple):
    """The tokens that were seen after each of N contexts: rows, which context, (F,); tokens, (F,);
    shares, their discounted probabilities, (F,); left, what each context leaves to the order below,
    (N,)."""

    rows: Tensor
    tokens: Tensor
    shares: Tensor
    left: Tensor


class Table(nn.Module):
    """The n-grams of one order. The key of an n-gram is the rank of its context among those of
    the order below, times V, plus its last token: less than the text's length times V.

    keys: (G,), ascending. counts: (G,). discounts: of counts 0, 1, 2 and more, (4,).
    """

    keys: Tensor
    counts: Tensor
    discounts: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("counts", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("discounts", torch.zeros(4))

    def set(self, keys_G: Tensor, counts_G: Tensor) -> None:
        self.keys, self.counts = keys_G, counts_G
        self.discounts = self.discounts.new_tensor((0.0, *discounts(counts_G)))

    def find(self, keys: Tensor) -> Tensor:
        """The rank of each n-gram, in the shape of `keys`; -1 for one that was not counted."""
        if not len(self.keys):
            return torch.full_like(keys, -1)
        ranks = torch.searchsorted(self.keys, keys).clamp_max(len(self.keys) - 1)
        return torch.where(self.keys[ranks] == keys, ranks, -1)

    def followers(self, contexts_N: Tensor, vocab_size: int) -> Followers:
        """contexts: ranks; -1, which nothing follows, leaves all to the order below."""
        first_N = torch.searchsorted(self.keys, contexts_N * vocab_size)
        sizes_N = torch.searchsorted(self.keys, (contexts_N + 1) * vocab_size) - first_N
        rows_F = torch.arange(len(contexts_N), device=sizes_N.device).repeat_interleave(sizes_N)
        begins_N = sizes_N.cumsum(0) - sizes_N
        grams_F = torch.arange(len(rows_F), device=rows_F.device) + (first_N - begins_N)[rows_F]
        counts_F = self.counts[grams_F]
        taken_F = self.discounts[counts_F.clamp_max(3)]
        zeros_N = torch.zeros_like(contexts_N, dtype=taken_F.dtype)
        total_N = zeros_N.index_add(0, rows_F, counts_F.to(taken_F.dtype))
        left_N = torch.where(sizes_N > 0, zeros_N.index_add(0, rows_F, taken_F) / total_N, 1.0)
        shares_F = (counts_F - taken_F) / total_N[rows_F]
        return Followers(rows_F, self.keys[grams_F] % vocab_size, shares_F, left_N)

    def resize(self, keys_G: Tensor, counts_G: Tensor, discounts: Tensor, limit: int) -> None:
        """Make room for saved n-grams, whose keys are below `limit`. Raises ValueError for values
        that no text gives."""
        highest = torch.arange(4, device=discounts.device)
        sound = keys_G.dim() == counts_G.dim() == 1 and len(keys_G) == len(counts_G)
        sound = sound and discounts.shape == (4,) and not keys_G.is_floating_point()
        sound = sound and bool(
            (keys_G.diff() > 0).all()
            and ((keys_G >= 0) & (keys_G < limit) & (counts_G >= 1)).all()
            and ((discounts >= 0) & (discounts <= highest)).all()
        )
        if not sound:
            raise ValueError("the n-grams are not those of a text")
        self.keys = self.keys.new_zeros(len(keys_G))
        self.counts = self.counts.new_zeros(len(keys_G))


class KneserNey(nn.Module):
    """Ranks of contexts, (…, C), to log-probabilities, (…, V)."""

    def __init__(self, vocab_size: int, order: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.tables = nn.ModuleList(Table() for _ in range(order))

    @property
    def orders(self) -> list[Table]:
        """The tables, of order 1 first."""
        return cast(list[Table], list(self.tables))

    def fit(self, ids_N: Tensor, marker: int | None = None) -> None:
        """Count the n-grams of every order; below the highest, the different tokens before them."""
        places_N = torch.arange(len(ids_N), device=ids_N.device)  # where n-grams begin
        # Of the n-gram of the order below that begins at each place; -1: it would reach too far.
        ranks_N = torch.zeros(len(ids_N) + 1, dtype=torch.int64, device=ids_N.device)
        keys_G = counts_G = ids_N.new_empty(0)
        for length in range(len(self.orders)):
            places_N = places_N[places_N < len(ids_N) - length]
            if length > 1 and marker is not None:
                places_N = places_N[ids_N[places_N + length - 1] != marker]
            keys_N = ranks_N[places_N] * self.vocab_size + ids_N[places_N + length]
            longer_G, own_N, times_G = count(keys_N)
            if length:
                # The n-gram of the order below that each of these ends with.
                ends_G = torch.empty_like(longer_G)
                ends_G[own_N] = ranks_N[places_N + 1]
                before_G = ends_G.bincount(minlength=len(keys_G))
                if length > 1 and marker is not None:
                    first_N = ranks_N[:-1][ids_N == marker]
                    first_N = first_N[first_N >= 0]
                    before_G[first_N] = counts_G[first_N]
                else:
                    before_G[ranks_N[:1][ranks_N[:1] >= 0]] += 1  # the start of the text
                self.orders[length - 1].set(keys_G, before_G)
            ranks_N = torch.full_like(ranks_N, -1)
            ranks_N[places_N] = own_N
            keys_G, counts_G = longer_G, times_G
        self.orders[-1].set(keys_G, counts_G)

    def forward(self, contexts: Tensor) -> Tensor:
        contexts_NC = contexts.flatten(0, -2)
        lowest, *higher = self.orders
        p_NV = lowest.discounts.new_zeros(len(contexts_NC), self.vocab_size)
        left_N = p_NV.new_ones(len(contexts_NC))  # to this order
        for table, contexts_N in reversed([*zip(higher, contexts_NC.unbind(1), strict=True)]):
            if len(table.keys):
                seen = table.followers(contexts_N, self.vocab_size)
                p_NV[seen.rows, seen.tokens] += left_N[seen.rows] * seen.shares
                left_N = left_N * seen.left
        p_V = p_NV.new_full((self.vocab_size,), 1 / self.vocab_size)
        if len(lowest.keys):
            seen = lowest.followers(lowest.keys.new_zeros(1), self.vocab_size)
            p_V = (seen.left * p_V).index_add(0, seen.tokens, seen.shares)
        log_p_NV = (p_NV + left_N[:, None] * p_V).log()
        return log_p_NV.reshape(*contexts.shape[:-1], self.vocab_size)


def count(keys_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The different keys, ascending, (G,); which of them each key is, (N,); how often each comes,
    (G,). Many are sorted in parts, so that no call takes long."""
    every = max(1, len(keys_N) // 10_000)
    sample = keys_N[::every].sort().values
    borders = sample[PART // every :: max(1, PART // every)].unique()
    part_N = torch.bucketize(keys_N, borders, out_int32=True)
    own_N, found, counts, total = torch.empty_like(keys_N), [], [], 0
    for part in range(len(borders) + 1):
        at = (part_N == part).nonzero()[:, 0]
        keys, own, times = keys_N[at].unique(return_inverse=True, return_counts=True)
        own_N[at] = own + total
        found.append(keys)
        counts.append(times)
        total += len(keys)
    return torch.cat(found), own_N, torch.cat(counts)


def discounts(counts_G: Tensor) -> tuple[float, float, float]:
    """Of a count of 1, 2 and more, from how many n-grams have a count of 1 to 4 (eq. 26); FALLBACK
    if that leaves one undefined or outside 0 < D <= its count."""
    _, n1, n2, n3, n4, _ = counts_G.clamp_max(5).bincount(minlength=6).tolist()
    if not n1 or not n2 or not n3:
        return FALLBACK
    y = n1 / (n1 + 2 * n2)
    found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
    return found if all(0 < d <= count for count, d in enumerate(found, 1)) else FALLBACK
