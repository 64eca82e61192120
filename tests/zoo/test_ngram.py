"""Counted n-grams against the paper's formulas over dictionaries, written here from Chen & Goodman
(1998), section 3; sums of probabilities; and the figures of tiny_shakespeare."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch

import zoo.ngram as module
from harness.compute.device import Compute
from harness.evaluation.score import token_nats
from harness.runs.restore import load_weights
from tests.zoo_models import COUNTED, NAMES, node, random_ids, weightless
from zoo.ngram import Followers, KneserNey, NGram, Table

START = -1  # before the first token


class Dictionaries:
    """p(token | context) of an interpolated modified Kneser-Ney model, by the formulas."""

    def __init__(
        self, text: Sequence[int], order: int, vocab_size: int, marker: int | None = None
    ) -> None:
        self.order, self.vocab_size = order, vocab_size
        self.followers: list[dict[tuple[int, ...], dict[int, int]]] = []
        self.discounts: list[dict[int, float]] = []
        padded = [START, *text]
        for n in range(1, order + 1):
            left = defaultdict(set)
            times: Counter[tuple[int, ...]] = Counter()
            for at in range(1, len(padded) - n + 1):
                gram = tuple(padded[at : at + n])
                if marker in gram[1:-1]:
                    continue  # of two documents
                left[gram].add(padded[at - 1])
                times[gram] += 1
            counts = times if n == order else {gram: len(before) for gram, before in left.items()}
            for gram in counts:
                if n > 1 and gram[0] == marker:  # nothing comes before a document
                    counts[gram] = times[gram]
            followers = defaultdict(dict)
            for (*context, token), count in counts.items():
                followers[tuple(context)][token] = count
            self.followers.append(followers)
            self.discounts.append(self._discounts(list(counts.values())))

    @staticmethod
    def _discounts(counts: list[int]) -> dict[int, float]:
        n = [counts.count(k) for k in range(5)]
        try:
            y = n[1] / (n[1] + 2 * n[2])
            found = {
                1: 1 - 2 * y * n[2] / n[1], 2: 2 - 3 * y * n[3] / n[2], 3: 3 - 4 * y * n[4] / n[3]
            }  # fmt: skip
        except ZeroDivisionError:
            found = {1: math.nan}
        if all(0 < found[k] <= k for k in found):
            return found
        return {1: 0.5, 2: 1.0, 3: 1.5}

    def p(self, token: int, context: tuple[int, ...]) -> float:
        context = context[max(0, len(context) - self.order + 1) :]
        seen = self.followers[len(context)].get(context, {})
        lower = self.p(token, context[1:]) if context else 1 / self.vocab_size
        if not seen:
            return lower
        taken = {other: self.discounts[len(context)][min(c, 3)] for other, c in seen.items()}
        total = sum(seen.values())
        own = (seen[token] - taken[token]) / total if token in seen else 0.0
        return own + sum(taken.values()) / total * lower


def fitted(text: Sequence[int], order: int, vocab_size: int) -> NGram:
    model = NGram(vocab_size, order).double().eval()
    model.fit(torch.tensor(text))
    return model


@lru_cache
def skewed(length: int, vocab_size: int, seed: int = 0) -> tuple[int, ...]:
    """A text with n-grams of every small count: each token depends on the one before."""
    draw, text = np.random.default_rng(seed), [0]
    while len(text) < length:
        text.append(int(text[-1] + draw.geometric(0.4)) % vocab_size)
    return tuple(text[:length])


def require_parity(order: int, text: Sequence[int], vocab_size: int) -> None:
    """Every probability in contexts seen and unseen, and at the start of a text."""
    model, exact = fitted(text, order, vocab_size), Dictionaries(text, order, vocab_size)
    for asked in (text[:40], random_ids(1, 40, vocab_size=vocab_size)[0].tolist()):
        p_TV = model(torch.tensor([asked]))[0].exp()
        for at in range(len(asked)):
            context = tuple(asked[: at + 1])
            expected = [exact.p(token, context) for token in range(vocab_size)]
            torch.testing.assert_close(p_TV[at].tolist(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("order", range(1, 9))
def test_every_probability_is_the_formula_s(order: int) -> None:
    require_parity(order, skewed(2000, 9), 9)


@pytest.mark.parametrize("text", [[0], [3, 3], [0, 1, 2], [2] * 30, [0, 1] * 15])
def test_texts_too_short_for_their_order(text: list[int]) -> None:
    require_parity(5, text, 4)


@pytest.mark.parametrize("order", range(1, 9))
@pytest.mark.parametrize("lengths", [(1, 5, 0, 2, 9, 3, 3, 1, 12, 4), (0,), (1, 0, 0)])
def test_documents_don_t_see_each_other(order: int, lengths: tuple[int, ...]) -> None:
    """By the formulas over n-grams without a marker inside. Order and number change nothing."""
    marker, text, documents = 8, iter(skewed(3000, 8)), []
    for length in lengths * 20:
        documents.append([next(text) for _ in range(length)])
    probabilities = []
    for chosen in (documents, documents[::-1]):
        ids = [marker, *(id_ for document in chosen for id_ in (*document, marker))]
        model, exact = NGram(9, order).double().eval(), Dictionaries(ids, order, 9, marker)
        model.fit(torch.tensor(ids), marker)
        asked = [marker, *documents[4 % len(documents)]]
        p_TV = model(torch.tensor([asked]))[0].exp()
        for at in range(len(asked)):
            expected = [exact.p(token, tuple(asked[: at + 1])) for token in range(9)]
            torch.testing.assert_close(p_TV[at].tolist(), expected, rtol=0, atol=1e-12)
        probabilities.append(p_TV)
    torch.testing.assert_close(*probabilities, rtol=0, atol=1e-12)


def test_the_discounts_are_of_all_kinds() -> None:
    """Else the parity would be that of the fallback alone."""
    tables = fitted(skewed(2000, 9), 8, 9).head.orders
    fallback = [tuple(table.discounts[1:].tolist()) == module.FALLBACK for table in tables]
    assert {*fallback} == {True, False}
    assert module.discounts(torch.tensor([1] * 4 + [2] * 2 + [3] + [4])) == (0.5, 1.25, 1.0)


@pytest.mark.parametrize("order", range(1, 9))
def test_probabilities_sum_to_one_in_every_context(order: int) -> None:
    """Each context of the text, contexts of which it has a part, and those it has nothing of."""
    text = torch.tensor(skewed(1000, 30)) * 2  # odd ids are in no context
    model = fitted(text.tolist(), order, 61)
    mixed = torch.where(torch.rand(1000) < 0.2, text + 1, text)
    for asked in (text, mixed, random_ids(1, 1000, vocab_size=61)[0]):
        p_TV = model(asked[None])[0].exp()
        assert (p_TV > 0).all()
        torch.testing.assert_close(p_TV.sum(-1), torch.ones(1000).double(), rtol=0, atol=1e-12)


def test_order_8_of_a_large_vocabulary_does_not_overflow() -> None:
    """100,000^8 has 133 bits."""
    vocab_size = 100_000
    text = (torch.tensor(skewed(400, 20)) * 4999 + 4999).tolist()
    model, exact = fitted(text, 8, vocab_size), Dictionaries(text, 8, vocab_size)
    log_p_TV = model(torch.tensor([text[:60]]))[0]
    for at in range(59):
        expected = exact.p(text[at + 1], tuple(text[: at + 1]))
        assert log_p_TV[at, text[at + 1]].exp().item() == pytest.approx(expected, abs=1e-12)
    assert all(table.keys.max() < len(text) * vocab_size for table in model.head.orders)


@pytest.mark.parametrize("part", [1, 7, 100, 10_000])
@pytest.mark.parametrize("vocab_size", [1, 2, 50])
def test_counted_in_parts_as_at_once(
    part: int, vocab_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PART", part)
    for keys_N in (torch.tensor(skewed(300, vocab_size)), torch.tensor([3]), torch.tensor([0, 0])):
        expected = keys_N.unique(return_inverse=True, return_counts=True)
        assert all(map(torch.equal, module.count(keys_N), expected))


def test_unfitted_it_is_uniform_and_fitted_again_it_forgets() -> None:
    ids = random_ids(1, 9, vocab_size=5)
    torch.testing.assert_close(NGram(5, 3)(ids).exp(), torch.full((1, 9, 5), 0.2))
    model = fitted(skewed(300, 5), 3, 5)
    model.fit(torch.tensor(skewed(200, 5, seed=1)))
    assert torch.equal(model(ids), fitted(skewed(200, 5, seed=1), 3, 5)(ids))


def state() -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in fitted(skewed(300, 5), 3, 5).state_dict().items()}


WRONG: dict[str, tuple[str, Callable[[torch.Tensor], torch.Tensor]]] = {
    "keys out of order": ("head.tables.1.keys", lambda keys: keys.flip(0)),
    "a key twice": ("head.tables.2.keys", lambda keys: keys.index_fill(0, torch.tensor(1), 0)),
    "a token that is none": ("head.tables.0.keys", lambda keys: keys + 1),
    "a context that is none": ("head.tables.1.keys", lambda keys: keys + 5 * 5),
    "a negative key": ("head.tables.0.keys", lambda keys: keys - 1),
    "a count of zero": ("head.tables.2.counts", lambda counts: counts - 1),
    "a count too few": ("head.tables.2.counts", lambda counts: counts[1:]),
    "a discount above its count": ("head.tables.1.discounts", lambda d: d + 2),
    "NaN": ("head.tables.1.discounts", lambda d: d * math.nan),
    "no vector": ("head.tables.1.keys", lambda keys: keys[None]),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_saved_state_that_no_text_gives_is_refused(name: str) -> None:
    key, change = WRONG[name]
    load_weights(NGram(5, 3).double(), state(), "model")
    changed = state()
    changed[key] = change(changed[key])
    with pytest.raises(ValueError, match="the n-grams are not those of a text"):
        load_weights(NGram(5, 3).double(), changed, "model")


def _one_discount(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(module, "discounts", lambda counts_G: (0.7,) * 3)


def _raw_counts(patch: pytest.MonkeyPatch) -> None:
    """At every order: interpolated, but not Kneser-Ney."""
    plain = KneserNey.fit

    def fit(head: KneserNey, ids_N: torch.Tensor, marker: int | None = None) -> None:
        for length in range(len(head.orders)):
            alone = KneserNey(head.vocab_size, length + 1).double()
            plain(alone, ids_N, marker)
            head.orders[length].set(alone.orders[-1].keys, alone.orders[-1].counts)

    patch.setattr(KneserNey, "fit", fit)


def _no_interpolation(patch: pytest.MonkeyPatch) -> None:
    """Lower orders only where a context was never seen."""
    followers = Table.followers

    def alone(*arguments: object) -> Followers:
        rows_F, tokens_F, share_F, left_N = followers(*arguments)
        return Followers(rows_F, tokens_F, share_F, left_N * (left_N == 1))

    patch.setattr(Table, "followers", alone)


def _packed_too_tightly(patch: pytest.MonkeyPatch) -> None:
    """Two n-grams with one number."""
    init = NGram.__init__

    def tight(model: NGram, vocab_size: int, order: int) -> None:
        init(model, vocab_size, order)
        model.head.vocab_size -= 1
        model.vocab_size -= 1

    patch.setattr(NGram, "__init__", tight)


@pytest.mark.parametrize(
    "mutate", [_one_discount, _raw_counts, _no_interpolation, _packed_too_tightly]
)
def test_the_parity_notices(mutate: object, monkeypatch: pytest.MonkeyPatch) -> None:
    mutate(monkeypatch)  # type: ignore[operator]
    with pytest.raises((AssertionError, IndexError)):
        require_parity(3, skewed(2000, 9), 9)


def test_the_figures_of_tiny_shakespeare(assets: Path) -> None:
    """Independent figures, in nats a character on validation and test. They use the unigrams'
    formula beyond its range (a D2 of -1.6) and score the first character: that adds up to 7e-5."""
    text = np.frombuffer((assets / "tiny_shakespeare.txt").read_bytes(), dtype=np.uint8)
    found, ids = np.unique(text, return_inverse=True)
    train, val, test = np.split(ids, [892_315, 1_003_854])
    cpu = Compute(torch.device("cpu"), "fp32")
    for order, expected in ((5, (1.5239, 1.7280)), (7, (1.4872, 1.6869))):
        model = NGram(len(found), order).eval()
        model.fit(torch.from_numpy(train))
        scores = [token_nats(model, part, cpu).mean(dtype=np.float64) for part in (val, test)]
        assert scores == pytest.approx(expected, abs=1.5e-4)


@pytest.mark.parametrize("order", [0, 9, -1])
def test_an_order_out_of_range_is_refused(order: int) -> None:
    with pytest.raises(ValueError, match=f"order={order} must lie between 1 and 8"):
        NGram(5, order)


def test_the_models_that_count_are_listed() -> None:
    assert {name for name in NAMES if weightless(node(name)).fit is not None} == COUNTED
