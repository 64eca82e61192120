"""`together=A | B`: settings of a sweep that go together. A and B are settings as they are typed.

    -m 'together=model=gpt optimizer.lr=1e-3 | model=wavenet optimizer.lr=3e-3' seed=0,1,2

has 2 × 3 jobs. Hydra's own sweeps are products of single settings.
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Callable, Iterable

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, Quote, QuotedString

from harness.common.errors import UsageError
from harness.common.values import show

KEY = "together"
Jobs = list[list[str]]
Prepare = Callable[[list[str]], list[str]]


def is_typed(override: str) -> bool:
    """Whether it is a `together=…` as it is typed. Hydra asks twice for a configuration, the second
    time with what `as_choice` has made."""
    return override.startswith(f"{KEY}=") and not override.startswith(f"{KEY}=choice(")


def as_choice(override: str, prepare: Prepare) -> str:
    """A typed `together=…` as a choice sweep of Hydra's grammar, in which each alternative is a
    text. prepare: checks the settings of one, and puts them as Hydra wants them. Raises
    UsageError."""
    text = override.partition("=")[2]
    texts = []
    for alternative in text.split(" | "):
        try:
            words = shlex.split(alternative)
        except ValueError as error:
            raise UsageError(f"{KEY}: {show(alternative)}: {error}") from error
        if not words or not all("=" in word for word in words):
            raise UsageError(
                f"{KEY}={show(text)} should be settings that go together, the alternatives between "
                f"bars: '{KEY}=model=gpt optimizer.lr=1e-3 | model=wavenet optimizer.lr=3e-3'"
            )
        texts.append(QuotedString(shlex.join(prepare(words)), Quote.double).with_quotes())
    return f"{KEY}=choice({','.join(texts)})"


def _split_arguments(overrides: list[Override], max_batch_size: int | None) -> list[Jobs]:
    """As Hydra's sweeper, but that an alternative gives several settings at once."""
    (rest,) = _product([each for each in overrides if each.key_or_group != KEY], None)
    jobs = rest
    for override in overrides:
        if override.key_or_group == KEY:
            jobs = [
                _joined(own, job) for own, job in itertools.product(_alternatives(override), jobs)
            ]
    if max_batch_size is None:
        return [jobs]
    return [list(batch) for batch in BasicSweeper.split_overrides_to_chunks(jobs, max_batch_size)]


def _alternatives(override: Override) -> Jobs:
    """The settings of each, one of which may itself be a sweep."""
    sweep = override.value()
    if not isinstance(sweep, ChoiceSweep):
        raise UsageError(f"{KEY} should be typed as '{KEY}=A | B'")
    parser = OverridesParser.create()
    found: Jobs = []
    for text in sweep.list:
        words = shlex.split(text.text if isinstance(text, QuotedString) else str(text))
        found += _product(parser.parse_overrides(words), None)[0]
    return found


def _joined(own: Iterable[str], job: Iterable[str]) -> list[str]:
    own, job = list(own), list(job)
    keys = [{word.lstrip("+~").partition("=")[0] for word in words} for words in (own, job)]
    if twice := sorted(keys[0] & keys[1]):
        raise UsageError(f"{KEY}: {', '.join(twice)} is given beside it, too: give it once")
    return [*own, *job]


_product = BasicSweeper.split_arguments
# Hydra calls it by this name, and has no option for another sweeper that needs no plugin.
BasicSweeper.split_arguments = staticmethod(_split_arguments)  # type: ignore[method-assign]
