"""The progress bar, on stderr."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from harness.common.rows import Row
from harness.config.settings import Settings

LOG = logging.getLogger("harness")


@contextmanager
def progress_bar(settings: Settings) -> Iterator[Callable[[Row], None]]:
    """A bar with loss, speed and time left; none where stderr is not a terminal."""
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

        def on_row(row: Row) -> None:
            spent = min(row["step" if currency == "steps" else currency], total)
            if not bar.n:
                bar.initial = bar.n = spent  # a resumed run: measure the speed of this session
            if "train/loss" in row:
                shown = f"loss {row['train/loss']:.3f}, {row['epochs']:.3g} epochs"
                bar.set_postfix_str(shown, refresh=False)
            bar.update(spent - bar.n)

        yield on_row if not bar.disable else lambda row: None
