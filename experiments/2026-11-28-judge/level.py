"""How often a verdict is wrong, how many pairs it takes, and what the ledger is for: by simulation.

python experiments/2026-11-28-judge/level.py verdicts
python experiments/2026-11-28-judge/level.py ledgers
"""

import math
import sys

import numpy as np

from harness.judging.evidence import BETTER, SAME, weigh
from harness.judging.online import level_of_try

LEVEL, MOST, TRIALS, LEDGERS, TRIES = 0.05, 30, 4000, 200, 100
rng = np.random.default_rng(17)

# Scores over seeds: mean 0, variance 1 (but for the two with unlike variances).
SEEDS = {
    "normal": lambda n: rng.normal(size=n),
    "lognormal (skewness 6)": lambda n: (rng.lognormal(0, 1, n) - math.exp(0.5)) / 2.161,
    "Student's t, 3 degrees": lambda n: rng.standard_t(3, n) / math.sqrt(3),
    "a tenth of the seeds 5σ worse": lambda n: rng.normal(size=n) + 5 * (rng.random(n) < 0.1),
}


def judged(
    candidate: np.ndarray,
    baseline: np.ndarray,
    margin: float,
    level: float = LEVEL,
    most: int = MOST,
) -> tuple[str | None, int]:
    """(verdict, pairs) of one judgement of these scores."""
    differences = candidate[:most] - baseline[:most]
    for pairs in range(2, most + 1):
        verdict = weigh(differences[:pairs], margin, level).verdict
        if verdict is not None:
            return verdict, pairs
    return None, most


def share(count: int, trials: int) -> str:
    """With its 95 % interval (Wilson)."""
    p, z = count / trials, 1.96
    middle = (p + z * z / 2 / trials) / (1 + z * z / trials)
    half = z * math.sqrt(p * (1 - p) / trials + (z / 2 / trials) ** 2) / (1 + z * z / trials)
    return f"{p:.2%} ({max(0.0, middle - half):.2%} to {middle + half:.2%})"


def verdicts() -> None:
    print(
        f"wrong verdicts at level {LEVEL:.0%}, a look after each of {MOST} pairs, {TRIALS} trials"
    )
    for first, second, scale in (
        *((name, name, 1.0) for name in SEEDS),
        ("normal", "normal", 10.0),
        ("lognormal (skewness 6)", "normal", 1.0),
    ):
        # A seed that is worse at times has another mean: the comparison is with that mean.
        offset = 0.5 * scale * (first == "a tenth of the seeds 5σ worse")
        other = 0.5 * (second == "a tenth of the seeds 5σ worse")
        wrong = sum(
            judged(scale * SEEDS[first](MOST) - offset, SEEDS[second](MOST) - other, 1e-9)[0]
            is not None
            for _ in range(TRIALS)
        )
        times = " of ten times the spread" if scale != 1 else ""
        print(f"  no difference: {first}{times} against {second}: {share(wrong, TRIALS)}")
    for margin in (1.0, 3.0):
        wrong = sum(
            judged(SEEDS["normal"](MOST) + margin, SEEDS["normal"](MOST), margin)[0] == SAME
            for _ in range(TRIALS)
        )
        print(f"  a difference of {margin}, called none larger than it: {share(wrong, TRIALS)}")

    print("\na t-test at 5 % after each pair, stopping at the first p below it (no difference)")
    T = [
        None,
        None,
        *(
            float(np.quantile(np.abs(rng.standard_t(n - 1, 400_000)), 0.95))
            for n in range(2, MOST + 1)
        ),
    ]
    wrong = 0
    for _ in range(TRIALS):
        d = rng.normal(size=MOST) - rng.normal(size=MOST)
        wrong += any(
            abs(d[:n].mean()) > T[n] * d[:n].std(ddof=1) / math.sqrt(n) for n in range(2, MOST + 1)
        )
    print(f"  {share(wrong, TRIALS)}")

    print("\npairs until it is settled, at the first three levels of a ledger and the hundredth")
    print("(median; share settled by 30 pairs; difference in standard deviations of one side)")
    for difference, margin in ((1, 0.1), (2, 0.1), (4, 0.1), (10, 0.1), (0, 1), (0, 3), (0, 10)):
        cells = []
        for number in (1, 2, 3, 100):
            ended = [
                judged(
                    rng.normal(size=MOST) - difference,
                    rng.normal(size=MOST),
                    margin,
                    level_of_try(number, 0),
                )
                for _ in range(200)
            ]
            done = [pairs for verdict, pairs in ended if verdict]
            cells.append(
                f"{int(np.median([p if v else 999 for v, p in ended])):>4} {len(done) / 200:>4.0%}"
            )
        print(
            f"  difference {difference:>2}, margin {margin:>3}: {' |'.join(cells)}".replace(
                " 999", " >30"
            )
        )


def ledgers() -> None:
    print(f"\n{LEDGERS} ledgers of {TRIES} tries, none better, 20 pairs each: with a win by luck")
    for name, level in (
        ("each at 5 %, no ledger", lambda number, found: LEVEL),
        ("e-LOND", level_of_try),
    ):
        with_win = wins = 0
        for _ in range(LEDGERS):
            found = 0
            for number in range(1, TRIES + 1):
                d = rng.normal(size=20)
                verdict, _n = judged(d, rng.normal(size=20), 1e-9, level(number, found), 20)
                found += verdict == BETTER
            wins += found
            with_win += found > 0
        print(f"  {name}: {share(with_win, LEDGERS)}; {wins / LEDGERS:.2f} wins a ledger")

    print("\na tenth of the tries better by 3σ: share of the wins that is by luck")
    true = 0
    rates = []
    for _ in range(LEDGERS):
        found = lucky = 0
        for number in range(1, TRIES + 1):
            real = rng.random() < 0.1
            d = rng.normal(size=20) - (3.0 if real else 0.0)
            verdict, _n = judged(d, rng.normal(size=20), 1e-9, level_of_try(number, found), 20)
            if verdict == BETTER:
                found += 1
                lucky += not real
        rates.append(lucky / max(1, found))
        true += found - lucky
    print(f"  e-LOND: {np.mean(rates):.2%}; {true / LEDGERS:.1f} of 10 true ones found")


{"verdicts": verdicts, "ledgers": ledgers}[sys.argv[1]]()
