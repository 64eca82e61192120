"""`harness.evaluate --calibration`: the passes it takes, and the files it leaves."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.common.files import atomic_write
from harness.common.rows import strict_json
from harness.data.dataset import Dataset
from harness.data.encoded import Split
from harness.evaluation.calibration import Calibration, Pass, fit_temperature, token_statistics
from harness.evaluation.nats import Measure
from harness.evaluation.score import score_of, token_nats
from harness.evaluation.surprise import by_frequency, passages
from harness.report.calibration_page import PageInfo, page
from harness.runs.load import Run

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
    tokens = token_statistics(passing(split), ids[1:], temperature.value, counts_V == 0)
    before, after = (score_of(nats, split, run.tokenizer, None) for nats in tokens.nats.T)
    found = Calibration(temperature, tokens, (before, after))
    bands = by_frequency(tokens, counts_V)
    worst = passages(tokens, int(ids[0]), run.tokenizer, PASSAGE, PASSAGES)
    info = PageInfo(
        run.settings.names.model,
        run.settings.names.data,
        run.settings.names.tokenizer,
        name,
        run.step,
        run.compute.precision,
        str(run.folder.path),
    )
    summary = found.summary()
    content = {**vars(info), **summary, "by_frequency": [asdict(band) for band in bands]}
    content["surprising"] = [asdict(passage) for passage in worst]
    for file_name, text in (
        ("calibration.json", strict_json(content, indent=1)),
        ("calibration.html", page(info, found, bands, worst)),
    ):
        with atomic_write(run.folder.path / file_name) as file:
            file.write(text.encode("utf-8", "replace"))
    return summary | {"page": str(run.folder.path / "calibration.html")}
