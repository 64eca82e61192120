"""`harness.evaluate --calibration`: evaluates a run and writes its calibration files."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from harness.common.files import write_atomically
from harness.common.rows import strict_json
from harness.data.dataset import Dataset
from harness.data.encoded import Split
from harness.evaluation.calibration import Calibration, Pass, fit_temperature, token_statistics
from harness.evaluation.score import score_of, token_nats
from harness.evaluation.surprise import by_frequency, passages
from harness.report.calibration_page import PageInfo, page
from harness.runs.load import Run

PASSAGES, PASSAGE_TOKENS = 8, 120  # the number and length of the passages shown


def calibrate(run: Run, dataset: Dataset, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Fit the temperature on val, evaluate the split `name`, and write calibration.html and
    calibration.json into the run's folder. options: arguments of `token_nats`.

    Returns the results to print.
    """
    split = getattr(dataset, name)
    counts_V = dataset.counts()

    def pass_over(split: Split) -> Pass:
        ids = np.asarray(split.ids)
        return lambda measure: token_nats(run.model, ids, run.compute, **options, measure=measure)

    assert dataset.val is not None, "checked by the caller"
    temperature = fit_temperature(pass_over(dataset.val))
    ids = np.asarray(split.ids)
    tokens = token_statistics(pass_over(split), ids[1:], temperature.value, counts_V == 0)
    before, after = (score_of(nats, split, run.tokenizer, None) for nats in tokens.nats.T)
    calibration = Calibration(temperature, tokens, (before, after))
    bands = by_frequency(tokens, counts_V)
    worst = passages(tokens, int(ids[0]), run.tokenizer, PASSAGE_TOKENS, PASSAGES)
    info = PageInfo(
        run.settings.names.model,
        run.settings.names.data,
        run.settings.names.tokenizer,
        name,
        run.step,
        run.compute.precision,
        str(run.folder.path),
    )
    summary = calibration.summary()
    content = {**vars(info), **summary, "by_frequency": [asdict(band) for band in bands]}
    content["surprising"] = [asdict(passage) for passage in worst]
    for file_name, text in (
        ("calibration.json", strict_json(content, indent=1)),
        ("calibration.html", page(info, calibration, bands, worst)),
    ):
        write_atomically(run.folder.path / file_name, text.encode(errors="replace"))
    return summary | {"page": str(run.folder.path / "calibration.html")}
