"""Seeded errors in the judge, for tests/test_mutants.py: what is wrong, and file, text, text put in
its place, the tests that must fail."""

from __future__ import annotations

JUDGEMENT, LEDGER = "harness/judging/judgement.py", "harness/judging/ledger.py"
JUDGING, COUNTING = "judging/test_judgement.py", "judging/test_ledger.py"
OF_THE_JUDGE = {
    "the judge's trainings read test": (
        JUDGEMENT,
        "reads_test=False",
        "reads_test=True",
        JUDGING,
    ),
    "the judge decides by test": (
        JUDGEMENT,
        'return certified_score(folder, side, "val")',
        'return certified_score(folder, side, "test")',
        JUDGING,
    ),
    "hardly any evidence is enough": (
        "harness/judging/evidence.py",
        "if e >= 1 / level]",
        "if e >= 1.5]",
        "judging/test_evidence.py",
    ),
    "a try that is open or was lost does not count": (
        LEDGER,
        "number = len(self.tries) + 1",
        "number = 1 + sum(self.outcome(each.number) is not None for each in self.tries)",
        COUNTING,
    ),
    "every try is the first": (
        LEDGER,
        "return number, level_of_try(number, found)",
        "return number, level_of_try(1, found)",
        COUNTING,
    ),
    "what is worse raises the level": (
        LEDGER,
        "outcome.verdict == BETTER for",
        "outcome.verdict is not None for",
        COUNTING,
    ),
    "the ledger's lines are not chained": (
        LEDGER,
        'if plain.get("previous") != entries.receipt:',
        "if False:",
        COUNTING,
    ),
    "both sides have the same seeds": (
        LEDGER,
        'f"{self.key} {side} {pair}"',
        'f"{self.key} {pair}"',
        COUNTING,
    ),
}
