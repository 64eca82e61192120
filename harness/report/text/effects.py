"""The effects of an ablation, in cells and sentences."""

from __future__ import annotations

from collections.abc import Iterator

from harness.report.statistics.effects import Ablation, Effect
from harness.report.statistics.paired import LEVEL
from harness.report.text.format import p_value, signed

HEADS = ("change", "how", "its gain", "interval", "p", "seeds", "an effect?")


def cells(effect: Effect) -> tuple[str, ...]:
    """By HEADS."""
    own = effect.interval
    return (
        effect.comparand.change,
        effect.comparand.how,
        "–" if effect.gain is None else signed(effect.gain),
        "–" if own is None else f"{signed(own.low)} to {signed(own.high)}",
        "–" if own is None or min(effect.seeds) < 2 else p_value(effect.p),
        " and ".join(map(str, dict.fromkeys(effect.seeds))),
        verdict(effect),
    )


def verdict(effect: Effect) -> str:
    """`better`, `worse`, `not shown`, or why it is not tested."""
    if effect.gain is None:
        return "no score"
    if effect.interval is None:
        return "text too short"
    if min(effect.seeds) < 2:
        return "one seed: not tested"
    if not effect.is_significant:
        return "not shown"
    return "better" if effect.gain > 0 else "worse"


def lines(found: Ablation) -> Iterator[str]:
    """What was done, and which changes have an effect."""
    yield f"Changes of {found.base}; {found.budget}."
    yield from (f"{line}." for line in found.missing)
    real = [effect for effect in found.effects if effect.is_significant]
    for effect in real:
        assert effect.interval is not None  # or it would not be significant
        assert effect.gain is not None
        yield (
            f"{_deed(effect, effect.gain)} {abs(effect.gain):.3f} bits per byte ({LEVEL:.0%} "
            f"interval of the change's gain {signed(effect.interval.low)} to "
            f"{signed(effect.interval.high)})."
        )
    if not real:
        yield "No change is shown to have an effect."


def _deed(effect: Effect, gain: float) -> str:
    """What is done and whether it gains or costs."""
    change, how = effect.comparand.change, effect.comparand.how
    if how == "left out":
        return f"{change} left out of all changes {'costs' if gain > 0 else 'gains'}"
    if how == "all at once":
        return f"All changes at once {'gain' if gain > 0 else 'cost'}"
    return f"{change} added to the base {'gains' if gain > 0 else 'costs'}"


def note(found: Ablation) -> str:
    """How the numbers are meant."""
    tested = [effect for effect in found.effects if effect.interval is not None]
    several = sum(min(effect.seeds) > 1 for effect in tested)
    text = f"text like these {found.text_bytes:,} bytes"
    if several == len(tested):
        scope = f"{text} and for new seeds; p is after"
    elif several:
        scope = f"{text} and, where both have several seeds, for new seeds; p is after"
    else:
        scope = f"{text} alone: one seed says nothing of the chance in training"
    correction = f" Holm's correction for all {found.family} effects" * bool(several)
    return (
        "A gain is how many bits per byte of validation fewer the variant with the change pays: "
        "added to the base alone, or beside the variant of all changes but this. Its "
        f"{LEVEL:.0%} interval is that of the change by itself, for {scope}{correction}. Test is "
        "not read."
    )
