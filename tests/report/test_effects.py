"""The words of an ablation: what its intervals speak of is what was drawn."""

from __future__ import annotations

import pytest

from harness.report.statistics.effects import Ablation, Comparand, Effect
from harness.report.statistics.paired import Interval
from harness.report.text.effects import HEADS, cells, note


def effect(*seeds: int) -> Effect:
    own = Interval(0.02, 0.01, 0.03, 0.0002)
    return Effect(Comparand("x", "added", "base", "add-1"), 0.02, own, (seeds[0], seeds[1]), 0.0002)


def ablation(*effects: Effect) -> Ablation:
    return Ablation("gpt", effects, "no search", 20_000)


@pytest.mark.parametrize(
    ("effects", "words"),
    [
        (
            [effect(1, 1)],
            "for text like these 20,000 bytes alone: one seed says nothing of the chance in "
            "training. Test is not read.",
        ),
        (
            [effect(3, 3), effect(3, 2)],
            "for text like these 20,000 bytes and for new seeds; p is after Holm's correction for "
            "all 2 effects. Test is not read.",
        ),
        (
            [effect(3, 3), effect(1, 3)],
            "for text like these 20,000 bytes and, where both have several seeds, for new seeds; p "
            "is after Holm's correction for all 2 effects. Test is not read.",
        ),
    ],
    ids=["one seed", "several", "some"],
)
def test_the_note_says_what_was_resampled(effects: list[Effect], words: str) -> None:
    assert note(ablation(*effects)).endswith(words)


def test_what_is_not_tested_has_no_p() -> None:
    one, several = (
        dict(zip(HEADS, cells(own), strict=True)) for own in (effect(1, 1), effect(2, 2))
    )
    assert (one["p"], one["an effect?"]) == ("–", "one seed: not tested")
    assert (several["p"], several["an effect?"]) == ("< 0.001", "better")
    assert one["interval"] == "0.010 to 0.030"
