"""Counted n-grams with modified interpolated Kneser-Ney smoothing: the floor that a trained model
has to cross.

Kneser & Ney, "Improved backing-off for M-gram language modeling" (1995); modified and interpolated:
Chen & Goodman, "An empirical study of smoothing techniques for language modeling" (Harvard TR-10-98,
1998), section 3, with three discounts for each order from the counts of counts (eq. 26).

N positions, C contexts of a position (one for each length), G n-grams of one order, F followers of
all contexts of a call.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.language_model import Cache, LanguageModel

ORDERS = range(1, 9)
# Of a count of 1, 2 and more where counts of counts define none (few n-grams): KenLM's defaults.
FALLBACK = (0.5, 1.0, 1.5)


class NGram(LanguageModel):
    """Counts in place of parameters: `fit` reads the train text once, and nothing is trained.

    p(w | h) = max(c(h w) - D(c), 0) / c(h) + b(h) p(w | h without its first token), where c are counts
    at the highest order and numbers of different tokens before h w at all others, and b(h) is what the
    discounts D took. The lowest order backs off to 1 / V. Before the first token stands the start of
    the text, which counts as one token of its own; positions with fewer than order - 1 tokens before
    them use the order that they have the context for. Uniform until it is fitted.
    """

    block_size = None

    def __init__(self, vocab_size: int, order: int = 7) -> None:
        super().__init__()
        if order not in ORDERS:
            raise ValueError(f"order={order} must lie between {ORDERS[0]} and {ORDERS[-1]}")
        self.vocab_size, self.order = vocab_size, order
        self.receptive_field = order - 1
        self.head: KneserNey = KneserNey(vocab_size, order)

    def fit(self, ids_N: Tensor) -> None:
        """Count a text, (N,) ids: one pass for each order. Forgets what was counted before."""
        self.head.fit(ids_N)

    def init_cache(self, batch_size: int) -> Cache:
        return Cache({"past": torch.zeros(batch_size, 0, dtype=torch.int64)})

    def features(self, ids_BT: Tensor, cache: Cache | None = None) -> Tensor:
        """The ranks of the contexts of 1 to order - 1 tokens that end at each position, (B, T, C)
        int64; -1 for one that the fitted text does not have, or that begins before this text."""
        self.advance(ids_BT, cache)
        present = ids_BT.shape[1]
        if cache is not None:
            ids_BT = torch.cat([cache.tensors["past"].to(ids_BT.device), ids_BT], dim=1)
            cache.tensors["past"] = ids_BT[:, max(0, ids_BT.shape[1] - self.order + 2) :]
        ranks_BT = torch.zeros_like(ids_BT)  # of the empty context
        contexts = []
        for length, table in enumerate(self.head.tables[:-1]):
            if length:  # the context that ends one token before
                ranks_BT = nn.functional.pad(ranks_BT[:, :-1], (1, 0), value=-1)
            ranks_BT = table.find(ranks_BT * self.vocab_size + ids_BT)
            contexts.append(ranks_BT[:, -present:])
        if not contexts:
            return ids_BT.new_empty(*ids_BT.shape, 0)
        return torch.stack(contexts, dim=-1)


class Table(nn.Module):
    """The n-grams of one order. Each is a number: the rank of its context among the n-grams of the
    order below, times V, plus its last token. So no number exceeds the text's length times V.

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

    def followers(self, contexts_N: Tensor, vocab_size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The tokens that were seen after each context: which of the contexts, (F,), the token,
        (F,), its discounted probability, (F,); and what each context leaves to the order below,
        (N,)."""
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
        return rows_F, self.keys[grams_F] % vocab_size, (counts_F - taken_F) / total_N[rows_F], left_N

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *rest: object) -> None:
        """Take the saved sizes: only the fitted text decides them."""
        for name in ("keys", "counts"):
            if isinstance(saved := state_dict.get(prefix + name), Tensor) and saved.dim() == 1:
                setattr(self, name, torch.empty_like(saved, device=self.keys.device))
        super()._load_from_state_dict(state_dict, prefix, *rest)


class KneserNey(nn.Module):
    """Ranks of contexts, (…, C), to log-probabilities, (…, V)."""

    def __init__(self, vocab_size: int, order: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.tables = nn.ModuleList(Table() for _ in range(order))

    def fit(self, ids_N: Tensor) -> None:
        """Count the n-grams of every order; below the highest, the different tokens before them."""
        ranks_N = torch.zeros(len(ids_N) + 1, dtype=torch.int64, device=ids_N.device)
        keys_G, counts_G = ids_N.new_empty(0), ids_N.new_empty(0)
        for length, table in enumerate(self.tables):
            keys_N = ranks_N[:-1] * self.vocab_size + ids_N[length:]
            longer_G, own_N, longer_counts_G = keys_N.unique(return_inverse=True, return_counts=True)
            if length:
                # The n-gram of the order below that each of these ends with.
                ends_G = torch.empty_like(longer_G)
                ends_G[own_N] = ranks_N[1:]
                before_G = ends_G.bincount(minlength=len(keys_G))
                before_G[ranks_N[:1]] += 1  # the start of the text
                self.tables[length - 1].set(keys_G, before_G)
            keys_G, counts_G, ranks_N = longer_G, longer_counts_G, own_N
        table.set(keys_G, counts_G)

    def forward(self, contexts: Tensor) -> Tensor:
        contexts_NC = contexts.flatten(0, -2)
        lowest, *higher = self.tables
        p_NV = lowest.discounts.new_zeros(len(contexts_NC), self.vocab_size)
        left_N = p_NV.new_ones(len(contexts_NC))  # to the orders below
        for length in range(len(higher), 0, -1):
            if len(higher[length - 1].keys):
                rows_F, tokens_F, share_F, own_N = higher[length - 1].followers(
                    contexts_NC[:, length - 1], self.vocab_size
                )
                p_NV[rows_F, tokens_F] += left_N[rows_F] * share_F
                left_N = left_N * own_N
        p_V = p_NV.new_full((self.vocab_size,), 1 / self.vocab_size)
        if len(lowest.keys):
            _, tokens_F, share_F, own_1 = lowest.followers(lowest.keys.new_zeros(1), self.vocab_size)
            p_V = (own_1 * p_V).index_add(0, tokens_F, share_F)
        return (p_NV + left_N[:, None] * p_V).log().reshape(*contexts.shape[:-1], self.vocab_size)


def discounts(counts_G: Tensor) -> tuple[float, float, float]:
    """Of a count of 1, 2 and more, from how many n-grams have a count of 1 to 4 (eq. 26); FALLBACK
    where that leaves one undefined or outside 0 < D <= its count."""
    _, *n = counts_G.clamp_max(5).bincount(minlength=6)[:5].tolist()
    if not all(n[:3]):
        return FALLBACK
    y = n[0] / (n[0] + 2 * n[1])
    found = tuple(count - (count + 1) * y * n[count] / n[count - 1] for count in (1, 2, 3))
    return found if all(0 < d <= count for count, d in enumerate(found, 1)) else FALLBACK
