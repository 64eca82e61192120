"""How often a verdict is wrong, how many pairs it takes, and what the ledger is for: by simulation.

python experiments/2026-11-28-judge/level.py

The rule of harness.judging.evidence, for all trials at once. N trials, P pairs.
"""

import math

import numpy as np
from numpy.typing import NDArray

from harness.judging.evidence import BETTER, EFFECTS, SAME, WORSE, weigh
from harness.judging.online import level_of_try

LEVEL, MOST, TRIALS, LEDGERS, TRIES = 0.05, 30, 20_000, 1000, 100
T95 = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.16]
T95 += [2.145, 2.131, 2.12, 2.11, 2.101, 2.093, 2.086, 2.08, 2.074, 2.069, 2.064, 2.06, 2.056]
T95 += [2.052, 2.048, 2.045]
Array = NDArray[np.floating]
rng = np.random.default_rng(17)


def normal(n: int, p: int) -> Array:
    return rng.normal(size=(n, p))


def lognormal(n: int, p: int) -> Array:
    """Mean 0, variance 1, skewness 6."""
    return (rng.lognormal(0, 1, (n, p)) - math.exp(0.5)) / 2.161


def heavy(n: int, p: int) -> Array:
    """Student's t with 3 degrees of freedom, variance 1."""
    return rng.standard_t(3, (n, p)) / math.sqrt(3)


def bad_seeds(n: int, p: int) -> Array:
    """A tenth of the seeds is worse by 5σ."""
    return rng.normal(size=(n, p)) + 5 * (rng.random((n, p)) < 0.1) - 0.5


def log_e(mean_N: Array, error_N: Array, pairs: int) -> Array:
    """harness.judging.evidence.e_of_t, of many."""
    t2, freedom = np.square(mean_N / error_N), pairs - 1
    logs = []
    for effect in EFFECTS:
        share = 1 + pairs * effect
        ratio = (freedom + t2) / (freedom + t2 / share)
        logs.append((pairs * np.log(ratio) - math.log(share)) / 2)
    return np.logaddexp.reduce(logs) - math.log(len(EFFECTS))


def judged(difference_NP: Array, margin: float, level: float | Array) -> tuple[Array, Array]:
    """Verdicts, (N,), as indices of (none, BETTER, WORSE, SAME), and pairs, (N,)."""
    trials, most = difference_NP.shape
    verdict_N, pairs_N = np.zeros(trials, int), np.full(trials, most)
    for pairs in range(2, most + 1):
        seen_NP = difference_NP[:, :pairs]
        mean_N, error_N = seen_NP.mean(1), seen_NP.std(1, ddof=1) / math.sqrt(pairs)
        enough_N = log_e(mean_N, error_N, pairs) >= -np.log(level)
        inside_N = np.abs(mean_N) < margin
        for edge in (margin, -margin):
            inside_N &= log_e(mean_N - edge, error_N, pairs) >= -np.log(level)
        now_N = np.select([enough_N & (mean_N < 0), enough_N & (mean_N > 0), inside_N], [1, 2, 3])
        new_N = (verdict_N == 0) & (now_N > 0)
        verdict_N[new_N], pairs_N[new_N] = now_N[new_N], pairs
    return verdict_N, pairs_N


def share(count: int, trials: int) -> str:
    """With its 95 % interval (Wilson)."""
    p, z = count / trials, 1.96
    middle = (p + z * z / 2 / trials) / (1 + z * z / trials)
    half = z * math.sqrt(p * (1 - p) / trials + (z / 2 / trials) ** 2) / (1 + z * z / trials)
    return f"{p:.2%} ({max(0.0, middle - half):.2%} to {middle + half:.2%})"


def main() -> None:
    # It is the harness's rule.
    for row in normal(200, 8) + rng.choice([-3, 0, 3], (200, 1)):
        (verdict,), (pairs,) = judged(row[None], 1.5, LEVEL)
        looks = [weigh(row[:look].tolist(), 1.5, LEVEL).verdict for look in range(2, 9)]
        first = next((look for look in looks if look), None)
        assert first == (None, BETTER, WORSE, SAME)[verdict]

    print(
        f"wrong verdicts at level {LEVEL:.0%}, a look after each of {MOST} pairs, {TRIALS} trials"
    )
    for name, one, other, scale in (
        ("normal, both", normal, normal, 1),
        ("normal, ten times the spread of the other", normal, normal, 10),
        ("skewed (lognormal), both", lognormal, lognormal, 1),
        ("heavy tails (t, 3 degrees), both", heavy, heavy, 1),
        ("a tenth of the seeds 5σ worse, both", bad_seeds, bad_seeds, 1),
        ("skewed against normal", lognormal, normal, 1),
        ("a tenth of the seeds 5σ worse against normal", bad_seeds, normal, 1),
    ):
        verdict_N, _ = judged(scale * one(TRIALS, MOST) - other(TRIALS, MOST), 1e-9, LEVEL)
        print(f"  {name}: {share(int((verdict_N > 0).sum()), TRIALS)}")
    for margin in (1.0, 3.0):
        verdict_N, _ = judged(normal(TRIALS, MOST) - normal(TRIALS, MOST) + margin, margin, LEVEL)
        wrong = int(((verdict_N == 3) | (verdict_N == 1)).sum())
        print(
            f"  a true difference of the margin, {margin:g}σ, called less: {share(wrong, TRIALS)}"
        )

    difference_NP = normal(TRIALS, MOST)
    wrong_N = np.zeros(TRIALS, bool)
    for pairs in range(2, MOST + 1):
        seen_NP = difference_NP[:, :pairs]
        error_N = seen_NP.std(1, ddof=1) / math.sqrt(pairs)
        wrong_N |= np.abs(seen_NP.mean(1)) > T95[pairs - 2] * error_N
    print(f"  instead a t-test at 5 % at each look, normal: {share(int(wrong_N.sum()), TRIALS)}")

    print("\nmedian pairs and share settled, by difference and margin in σ, at tries 1, 2, 3, 100")
    for difference, margin in ((1, 0.1), (2, 0.1), (4, 0.1), (10, 0.1), (0, 1), (0, 3), (0, 10)):
        cells = []
        for number in (1, 2, 3, TRIES):
            data_NP = normal(2000, MOST) - normal(2000, MOST) - difference
            verdict_N, pairs_N = judged(data_NP, margin, level_of_try(number, 0))
            done = (verdict_N > 0).mean()
            middle = f"{np.median(pairs_N):.0f}" if done > 0.5 else f">{MOST}"
            cells.append(f"{middle:>4} {done:>4.0%}")
        print(f"  {difference:>2} {margin:>4}  {' |'.join(cells)}")

    print(f"\n{LEDGERS} ledgers of {TRIES} tries of at most 20 pairs")
    for name, real, with_ledger in (
        ("none better, each at 5 %", 0.0, False),
        ("none better, e-LOND", 0.0, True),
        ("a tenth better by 3σ, each at 5 %", 0.1, False),
        ("a tenth better by 3σ, e-LOND", 0.1, True),
    ):
        found_N, lucky_N = np.zeros(LEDGERS, int), np.zeros(LEDGERS, int)
        for number in range(1, TRIES + 1):
            real_N = rng.random(LEDGERS) < real
            data_NP = normal(LEDGERS, 20) - normal(LEDGERS, 20) - 3 * real_N[:, None]
            level_N = np.full(LEDGERS, LEVEL)
            if with_ledger:
                level_N = level_of_try(number, 0) * (found_N + 1)
            verdict_N, _ = judged(data_NP, 1e-9, level_N)
            found_N += verdict_N == 1
            lucky_N += (verdict_N == 1) & ~real_N
        rate = (lucky_N / np.maximum(1, found_N)).mean()
        print(
            f"  {name}: a win by luck in {share(int((lucky_N > 0).sum()), LEDGERS)} of them; "
            f"{found_N.mean() - lucky_N.mean():.2f} true wins, {lucky_N.mean():.2f} by luck; "
            f"share of wins by luck {rate:.2%}"
        )


main()
