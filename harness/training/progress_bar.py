"""The progress bar, on stderr."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from harness.common.rows import Row
from harness.config.settings import Settings

LOG = logging.getLogger("harness")
REFRESH = 0.2  # seconds


class ProgressBar:
    """Loss, speed and time left of a training; while a split is scored, how much of it is."""

    def __init__(self, bar: Any, currency: str, total: float) -> None:
        self._bar, self._total = bar, total
        self._key = "step" if currency == "steps" else currency
        self._loss, self._drawn = "", 0.0

    def row(self, row: Row) -> None:
        """A step was taken, or an evaluation made."""
        bar = self._bar
        if bar.disable:
            return
        spent = min(row[self._key], self._total)
        if not bar.n:
            bar.initial = bar.n = spent  # a resumed run: measure the speed of this session
        if "train/loss" in row:
            epochs = "" if row["epochs"] is None else f", {row['epochs']:.3g} epochs"
            self._loss = f"loss {row['train/loss']:.3f}{epochs}"
        bar.set_postfix_str(self._loss, refresh=False)
        bar.update(spent - bar.n)

    def score(self, share: float) -> None:
        """This share of a split is scored by now."""
        if self._bar.disable or perf_counter() - self._drawn < REFRESH:
            return
        self._drawn = perf_counter()
        words = f"evaluating {share:.0%}"
        self._bar.set_postfix_str(f"{self._loss}, {words}" if self._loss else words)


@contextmanager
def progress_bar(settings: Settings) -> Iterator[ProgressBar]:
    """A bar; nothing where stderr is not a terminal."""
    names = settings.names
    currency, total = settings.train.budget
    description = f"{names.model} {names.tokenizer} s{settings.seed}"
    with (
        logging_redirect_tqdm([LOG]),
        tqdm(
            total=total,
            desc=description,
            unit=" " + currency,
            unit_scale=currency != "steps",
            disable=None,
            dynamic_ncols=True,
        ) as bar,
    ):
        yield ProgressBar(bar, currency, total)
