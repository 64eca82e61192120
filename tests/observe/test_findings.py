"""What looks wrong is said: the worst, and once."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.observe import findings
from tests.small_runs import train


def test_findings_name_the_worst_and_speak_once() -> None:
    found = findings.Findings()
    found.add({"step": 3, "dead/a/share": 0.05, "updates/w/log10_ratio": -3.0})
    assert found.pop() == []
    shares = {f"dead/{layer}/share": 0.1 * layer for layer in range(6)}
    found.add({"step": 4, **shares, "activations/t/saturation": 0.6})
    assert found.pop() == [
        "step 4: dead units: 50% of 5, 40% of 4, 30% of 3, 2 more",
        "step 4: saturated outputs: 60% of t",
    ]
    found.add({"step": 5, "dead/a/share": 0.9, "updates/head/log10_ratio": -0.8})
    assert found.pop() == [
        "step 5: updates far above the usual 10^-3 of the weights: 10^-0.8 of head"
    ]
    assert found.pop() == []


def test_a_training_says_what_looks_wrong(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "harness")
    train(tmp_path / "a", "model=mlp", "optimizer.lr=3.0", "observe.every=1", "model.n_hidden=32")
    assert "updates far above the usual 10^-3 of the weights: 10^" in caplog.text
    assert "of tanh" in caplog.text
