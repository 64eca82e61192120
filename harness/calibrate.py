"""`harness.evaluate --calibration`: the passes it takes, and the files it leaves."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.assets import placed
from harness.calibration import Calibration, Pass, fit_temperature, observe
from harness.data import Dataset, Split
from harness.load import Run
from harness.loggers import strict_json
from harness.loss import Measure
from harness.metrics import add_up, token_nats
from harness.report.calibration_page import Subject, page
from harness.surprise import by_frequency, passages

PASSAGES, PASSAGE = 8, 120  # how many of the most surprising are shown, of how many tokens each


def calibrate(run: Run, dataset: Dataset, name: str, how: dict[str, Any]) -> dict[str, Any]:
    """Fit the temperature on val, look at the split `name`, and write calibration.html and
    calibration.json into the run's folder. how: the arguments of `token_nats`.

    Returns what is said on stdout.
    """
    split = getattr(dataset, name)
    counts_V = dataset.counts()

    def passing(split: Split) -> Pass:
        def one_pass(measure: Measure) -> NDArray[np.floating]:
            ids = np.asarray(split.ids)
            return token_nats(run.model, ids, run.compute, **how, measure=measure)

        return one_pass

    assert dataset.val is not None, "the caller sees to it"
    temperature = fit_temperature(passing(dataset.val))
    ids = np.asarray(split.ids)
    observed = observe(passing(split), ids[1:], temperature.value, counts_V == 0)
    before, after = (add_up(nats, split, run.tokenizer, None) for nats in observed.nats.T)
    found = Calibration(temperature, observed, (before, after))
    bands = by_frequency(observed, counts_V)
    worst = passages(observed, int(ids[0]), run.tokenizer, PASSAGE, PASSAGES)
    subject = Subject(
        run.settings.names.model,
        run.settings.names.data,
        run.settings.names.tokenizer,
        name,
        run.step,
        run.compute.precision,
        str(run.folder.path),
    )
    summary = found.summary()
    content = {**vars(subject), **summary, "by_frequency": [asdict(band) for band in bands]}
    content["surprising"] = [asdict(passage) for passage in worst]
    for file_name, text in (
        ("calibration.json", strict_json(content, indent=1)),
        ("calibration.html", page(subject, found, bands, worst)),
    ):
        with placed(run.folder.path / file_name) as file:
            file.write(text.encode("utf-8", "replace"))
    return summary | {"page": str(run.folder.path / "calibration.html")}
