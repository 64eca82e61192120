"""Every try counts, at a level of its own, and the ledger shows where it was edited."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from harness.common.errors import RunFailure
from harness.judging.evidence import BETTER, SAME, WORSE
from harness.judging.ledger import FILE, Ledger, Try
from harness.judging.online import ALPHA, level_of_try, share_of_try


def enter(ledger: Ledger, verdict: str | None) -> Try:
    """A try that has ended."""
    with ledger.adding() as (entries, add):
        number, level = entries.next_level()
        entry = add(
            "try", number=number, candidate="a", baseline="b", identity=f"{number}", margin=0.01,
            level=level, key="0", git={},
        )  # fmt: skip
        ended = {"verdict": verdict, "pairs": 3, "mean": 0.1, "low": None, "high": None}
        add("outcome", number=number, **ended)
    assert isinstance(entry, Try)
    return entry


def test_the_levels_of_a_hundred_tries_spend_what_there_is() -> None:
    assert [level_of_try(number, 0) for number in (1, 2, 3)] == pytest.approx(
        [ALPHA / 2, ALPHA / 6, ALPHA / 12]
    )
    assert sum(map(share_of_try, range(1, 101))) == pytest.approx(100 / 101)
    assert level_of_try(4, 2) == pytest.approx(3 * level_of_try(4, 0))


def test_each_try_has_its_level_and_only_better_ones_raise_it(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    verdicts = [WORSE, SAME, None, BETTER, WORSE]
    levels = [enter(ledger, verdict).level for verdict in verdicts]
    found = (0, 0, 0, 0, 1)
    expected = [level_of_try(number, before) for number, before in enumerate(found, 1)]
    assert levels == pytest.approx(expected)
    assert ledger.read().next_level() == (6, pytest.approx(level_of_try(6, 1)))


def test_an_open_try_counts(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    with ledger.adding() as (_, add):
        add(
            "try", number=1, candidate="a", baseline="b", identity="x", margin=0.01, level=0.025,
            key="0", git={},
        )  # fmt: skip
    entries = ledger.read()
    assert entries.next_level()[0] == 2
    standing = entries.standing("x")
    assert standing is not None
    assert entries.outcome(standing.number) is None
    assert entries.standing("y") is None


def test_seeds_are_fresh_in_each_try_and_for_each_side(tmp_path: Path) -> None:
    one = enter(Ledger(tmp_path), None)
    other = one.model_copy(update={"key": "1"})
    seeds = [
        each.seed(side, pair)
        for each in (one, other)
        for side in ("candidate", "baseline")
        for pair in range(20)
    ]
    assert len(set(seeds)) == 80
    assert one.seed("candidate", 3) == one.seed("candidate", 3)


@pytest.mark.parametrize("what", ["changed", "taken out", "first taken out", "no entry", "torn"])
def test_an_edited_ledger_is_seen(tmp_path: Path, what: str) -> None:
    ledger = Ledger(tmp_path)
    for verdict in (WORSE, WORSE, BETTER):
        enter(ledger, verdict)
    lines = (tmp_path / FILE).read_text().splitlines()
    if what == "changed":
        lines[1] = lines[1].replace(WORSE, BETTER)
    elif what == "torn":
        lines[-1] = lines[-1][:-20]
    elif what == "no entry":
        lines[2] = json.dumps({"kind": "other"})
    else:
        del lines[0 if what == "first taken out" else 3]
    (tmp_path / FILE).write_text("\n".join(lines) + "\n")
    with pytest.raises(RunFailure, match="line") as raised:
        ledger.read()
    assert "\n" not in str(raised.value)


def test_a_receipt_shows_what_was_cut_off(tmp_path: Path) -> None:
    """A ledger without its last lines is whole, but not the one that a verdict came from."""
    ledger = Ledger(tmp_path)
    enter(ledger, WORSE)
    kept = (tmp_path / FILE).read_text()
    enter(ledger, WORSE)
    receipt = ledger.read().receipt
    (tmp_path / FILE).write_text(kept)
    assert ledger.read().receipt != receipt


def test_several_judges_at_once(tmp_path: Path) -> None:
    children = []
    for _ in range(3):
        if not (child := os.fork()):
            try:
                for _ in range(5):
                    enter(Ledger(tmp_path), None)
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    assert [each.number for each in Ledger(tmp_path).read().tries] == list(range(1, 16))
