"""Where a difference comes from: exact sums, planted differences found, and no others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.evaluation.token_classes import Partition
from harness.report.records.groups import Group
from harness.report.statistics import differences, paired, where
from harness.report.statistics.paired import Interval
from harness.report.statistics.passages import contrasts
from harness.report.statistics.where import PairDivided, Tokens, correct, divide, whole_pairs
from harness.report.text.where import pair_line
from tests.report.test_paired import HARD, text
from zoo_tokenizers.bytes import Bytes

PER_BLOCK, K = 8, 436  # tokens of 32 bytes in blocks of 256
M = PER_BLOCK * K
SIZES = np.full(M, 32)
TOKENS = Tokens(SIZES, int(SIZES[1:].sum()))


@pytest.fixture(autouse=True)
def _fewer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired, "DRAWS", 2000)


def labelled(generator: np.random.Generator, shares: tuple[float, ...], name: str) -> Partition:
    """Classes of these shares, without order."""
    labels = generator.choice(len(shares), M - 1, p=shares)
    return Partition(name, tuple(f"{name} {n}" for n in range(len(shares))), labels, "")


def by_pages(generator: np.random.Generator, blocks: int = 40) -> Partition:
    """Classes that come in stretches, as the speakers of a play do."""
    pages = generator.choice(3, 1 + K // blocks)
    labels = np.repeat(pages, blocks * PER_BLOCK)[1:M]
    return Partition("page", ("p 0", "p 1", "p 2"), labels, "")


def partitions(generator: np.random.Generator) -> list[Partition]:
    return [labelled(generator, (0.6, 0.33, 0.04, 0.03), "kind"), by_pages(generator)]


def noises(generator: np.random.Generator, trials: int) -> Iterator[NDArray]:
    """(N,): nats of no difference in the mean, correlated over pages as real ones are."""
    for own in text(generator, HARD, trials):
        noise = np.repeat(own, PER_BLOCK) + generator.standard_normal(M)
        yield 0.3 * noise[1:]


def found(difference: NDArray, parts: list[Partition]) -> PairDivided:
    (pair,) = correct([divide([np.ones(M - 1)], [1 + difference], TOKENS, parts)])
    return pair


def real(pair: PairDivided) -> set[str]:
    every = (part for division in pair.divisions for part in division.parts)
    return {part.name for part in every if part.is_significant}


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_classes_sum_to_the_whole_difference(seeds: int) -> None:
    """With tokens that cross the borders of blocks, of any size, none included."""
    generator = np.random.default_rng(seeds)
    sizes = generator.integers(0, 9, 20_000)
    first, second = generator.exponential(2, (2, seeds, len(sizes) - 1)).astype(np.float32)
    tokens = Tokens(sizes, int(sizes[1:].sum()) + 11)
    labels = generator.integers(0, 5, len(sizes) - 1)
    other = Partition("other", ("even", "odd"), labels % 2, "")
    pair = divide(first, second, tokens, [Partition("all", tuple("abcdef"), labels, ""), other])
    whole = (second.mean(0, np.float64) - first.mean(0, np.float64)).sum()
    assert pair.total == pytest.approx(whole / np.log(2) / tokens.scored, rel=1e-12)
    assert pair.interval is not None
    assert pair.interval.mean == pytest.approx(pair.total, rel=1e-12)
    for division in pair.divisions:
        assert sum(part.difference for part in division.parts) == pytest.approx(
            pair.total, rel=1e-12
        )
        assert sum(part.tokens for part in division.parts) == len(labels)
        for part in division.parts:
            assert part.interval is not None
            assert part.interval.mean == pytest.approx(part.difference, rel=1e-9, abs=1e-15)
            assert part.difference * tokens.scored / part.tokens == pytest.approx(
                part.second - part.first, rel=1e-9
            )
    assert [part.name for part in pair.divisions[0].parts] == list("abcde")  # f has no tokens


def test_the_whole_text_as_one_class_is_the_pair_s_own_interval() -> None:
    difference = next(noises(np.random.default_rng(1), 1))
    one = Partition("all", ("most", "rest"), (np.arange(M - 1) < 1).astype(int), "")
    pair = divide([np.zeros(M - 1)], [difference], TOKENS, [one])
    bits_K = TOKENS.bits_K(difference)
    plain = paired.paired_interval(np.zeros((1, K)), bits_K[None], np.full(K, 256))
    assert pair.interval is not None
    assert (pair.interval.low, pair.interval.high) == pytest.approx((plain.low, plain.high))


def test_a_planted_difference_is_found_where_it_is() -> None:
    """And a class whose tokens come unevenly, but with the same gain each, is as certain."""
    generator = np.random.default_rng(2)
    for noise in noises(generator, 5):
        parts = [partitions(generator)[0], by_pages(generator, 10)]
        kinds, pages = (part.labels for part in parts)
        assert "kind 1" in real(found(noise + 1.0 * (kinds == 1), parts))
        assert "kind 3" in real(found(noise + 3.0 * (kinds == 3), parts))  # three in a hundred
        assert "p 1" in real(found(noise + 4.0 * (pages == 1), parts))
    pages = by_pages(generator)
    exact = found(0.5 * (pages.labels == 1), [pages])
    (part,) = (part for part in exact.divisions[0].parts if part.name == "p 1")
    assert part.interval is not None
    assert part.interval.high - part.interval.low < 0.1 * part.interval.mean


def false_findings(trials: int) -> int:
    """How many texts without a difference have a class that is called different."""
    generator = np.random.default_rng(3)
    return sum(bool(real(found(own, partitions(generator)))) for own in noises(generator, trials))


def test_what_is_equal_is_seldom_called_different() -> None:
    """More than 5 of 40 have a probability of 1 % if 5 % are wrong."""
    assert false_findings(40) <= 5


@pytest.mark.long
def test_what_is_equal_is_called_different_in_five_percent() -> None:
    assert false_findings(2000) <= 0.05 * 2000


def test_without_the_correction_it_would_be_called_so_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(where, "holm", lambda p_values, family: list(p_values))
    assert false_findings(40) > 5


def test_the_correction_is_over_all_classes_of_all_pairs() -> None:
    generator = np.random.default_rng(4)
    parts = partitions(generator)
    alone = divide([np.zeros(M - 1)], [next(noises(generator, 1))], TOKENS, parts)
    pairs = correct([alone] * 3)
    assert where.family(pairs) == 6 * 7  # of four models there are six pairs
    before, after = (
        [part.p for division in each.divisions for part in division.parts]
        for each in (alone, pairs[0])
    )
    least = int(np.argmin(before))
    assert after[least] == pytest.approx(min(1, 42 * before[least]))


LABELS = "abcdefghi"


def equal_models(generator: np.random.Generator, trials: int) -> Iterator[list[NDArray]]:
    """Nine models of three seeds, (S, N) each: the same but for chance, the best first."""
    for _ in range(trials):
        own = [1 + noise for noise in noises(generator, len(LABELS))]
        seeds = [each + generator.normal(0, 0.01, (3, 1)) for each in own]
        yield sorted(seeds, key=lambda each: float(each.sum()))


def called(name: str) -> Group:
    return Group(name, "", "", "", name, {}, (), (None,) * 3)  # type: ignore


def pages_that_say_ahead(trials: int) -> int:
    """Of equal models."""
    generator, said = np.random.default_rng(6), 0
    groups = [called(name) for name in LABELS]
    for losses in equal_models(generator, trials):
        wholes = whole_pairs(groups, losses, TOKENS, int(SIZES.sum()))
        lines = [pair_line(pair, 0.0, "val") for pair in wholes[: len(groups) - 1]]
        said += any("not shown" not in line for line in lines)
    return said


def test_of_equal_models_the_best_is_seldom_called_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the best by chance, of all pairs: their p is corrected for all of them."""
    assert pages_that_say_ahead(20) <= 3
    monkeypatch.setattr(differences, "holm", list)
    assert pages_that_say_ahead(20) > 6


def pages_with_a_class(trials: int) -> int:
    """How many pages of equal models call a class of tokens different."""
    generator, said = np.random.default_rng(7), 0
    for losses in equal_models(generator, trials):
        parts = partitions(generator)
        pairs = correct([divide(losses[0], other, TOKENS, parts) for other in losses[1:]])
        said += any(map(real, pairs))
    return said


def test_of_equal_models_no_class_is_called_different() -> None:
    assert pages_with_a_class(20) <= 3


def test_the_pairs_are_those_of_the_report_s_correction() -> None:
    """Of all pairs of the models, with the interval that the classes add up to."""
    losses = next(equal_models(np.random.default_rng(8), 1))[:4]
    pairs = whole_pairs([called(name) for name in "abcd"], losses, TOKENS, int(SIZES.sum()))
    assert [pair.family for pair in pairs] == [6] * 6
    raw = [pair.interval.p for pair in pairs if pair.interval is not None]
    assert [pair.p for pair in pairs] == paired.holm(raw)
    for other, pair in zip(losses[1:], pairs, strict=False):
        whole = divide(losses[0], other, TOKENS, []).interval
        assert whole is not None
        assert pair.interval == whole
    short = Tokens(SIZES[:80], int(SIZES[1:80].sum()))
    few = [own[:, :79] for own in losses]
    (pair, *_) = whole_pairs([called(name) for name in "abcd"], few, short, 2560)
    for total, words in ((0.2, "a is 0.200 test bits per byte ahead of b"), (-0.1, "b is 0.100")):
        assert pair_line(pair, total, "test").startswith(f"As measured, {words}")
    assert pair_line(pair, 0.2, "test").endswith(
        "b. Not tested: 2,560 bytes are too short: 32 blocks are the least to test."
    )


def test_a_class_in_few_blocks_is_shown_and_not_tested() -> None:
    labels = np.zeros(M - 1, int)
    labels[: 31 * PER_BLOCK - 1] = 1
    pair = found(5.0 * labels, [Partition("x", ("most", "rare"), labels, "")])
    rare = pair.divisions[0].parts[1]
    assert (rare.interval, rare.p, rare.is_significant) == (None, 1.0, False)
    assert rare.difference > 0


def test_a_context_of_every_length_has_its_own_mean() -> None:
    """An extra cost of 1 / context in bits, beside a text that wavers: only the extra is seen."""
    generator = np.random.default_rng(5)
    full = generator.exponential(2, 8000)
    context = np.arange(8000) % 16 + 1
    limited = full + np.log(2) * (context == 1)
    tokens = Tokens(np.ones(8001, int), 8000)
    curve = where.context_curve([full], [limited], context, 8, tokens)
    assert curve.last == (1, 2, 4, 8, 16)
    score = full.mean() / np.log(2)
    assert curve.bits == pytest.approx([score + 1, *4 * [score]], rel=1e-12)
    assert curve.gains_until == 1
    more = where.context_curve([full, full], [limited, full], context, 8, tokens)
    assert (more.low[0], more.high[0]) == pytest.approx((score, score + 1))


@pytest.mark.parametrize("sign", [1, -1])
def test_the_words_claim_what_is_shown(sign: int) -> None:
    """Whoever is ahead comes first, with its own interval, and is called so by the corrected p."""
    a, b = called("a"), called("b")
    sure = differences.as_pair(
        a, b, Interval(sign * 0.2, *sorted((sign * 0.1, sign * 0.3)), 0.01), 1000
    )
    ahead, behind = ("a", "b") if sign > 0 else ("b", "a")
    (alone,) = differences.correct([sure])
    assert pair_line(alone, 0.2, "val") == (
        f"{ahead} is 0.200 validation bits per byte ahead of {behind} (95% interval 0.100 to "
        "0.300, for new seeds)."
    )
    of_nine = replace(alone, p=0.36, family=36)
    assert pair_line(of_nine, 0.2, "val") == (
        f"{ahead} is not shown to be ahead of {behind}: 0.200 validation bits per byte (95% "
        "interval 0.100 to 0.300, p 0.36 after Holm's correction for 36 pairs, for new seeds)."
    )
    low, high = sorted((sign * -0.1, sign * 0.5))
    one = Group("a", "", "", "", "a", {}, (), (None,))  # type: ignore
    unsure = differences.as_pair(one, b, Interval(sign * 0.2, low, high, 0.2), 1000)
    assert pair_line(differences.correct([unsure])[0], 0.2, "test").startswith(
        f"{ahead} is not shown to be ahead of {behind}: 0.200 test bits per byte (95% interval "
        "−0.100 to 0.500, for these trained models alone"
    )


def test_the_passages_shown_are_those_of_the_difference() -> None:
    tokenizer = Bytes()
    ids = tokenizer.encode("0123456789" * 200).astype(np.int64)
    difference = np.full(len(ids) - 1, 0.1)
    difference[500:660], difference[1000:1160] = 2.0, -1.0
    best, worst, ordinary = contrasts(difference, ids, tokenizer, ("a", "b"))
    assert (best.ahead, best.begin, best.bits) == ("a", 501, pytest.approx(320))
    assert (worst.ahead, worst.begin, worst.bits) == ("b", 1001, pytest.approx(-160))
    assert (ordinary.ahead, ordinary.bits) == (None, pytest.approx(16))
    assert "".join(piece.text for piece in best.pieces) == ("0123456789" * 17)[1:161]
    assert sum(piece.bits for piece in best.pieces) == pytest.approx(best.bits)
    assert best.lead.endswith("567890")
