"""Every number of a run reaches every logger, and no logger reaches the training."""

from __future__ import annotations

import json
import math

import pytest

from harness.loggers import Histogram, strict_json


def test_a_histogram_is_strict_json_too() -> None:
    row = {"step": 3, "train/loss": math.nan, "weights/a": Histogram([1, 2], [0.0, 0.5, math.inf])}
    expected = {"counts": [1, 2], "edges": [0.0, 0.5, None]}
    assert json.loads(strict_json(row)) == {"step": 3, "train/loss": None, "weights/a": expected}
    assert json.loads(strict_json({"a": Histogram([4], [0.0, 1.0])}))["a"]["counts"] == [4]
    with pytest.raises(TypeError, match="object can't be written as JSON"):
        strict_json({"a": object()})
