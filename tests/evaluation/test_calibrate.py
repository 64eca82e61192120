"""The command that calibrates a run."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Ended
from tests.evaluation.calibrating import Page

Command = Callable[..., Ended]


def test_a_run_is_calibrated(command: Command, train_run: Callable[..., Path]) -> None:
    run = train_run("model=bigram", "train.steps=20", "optimizer.lr=3e-2")
    plain = json.loads(command("evaluate", run, "--json").out)
    ended = command("evaluate", run, "--calibration", "--json")
    assert (ended.code, ended.err) == (0, "")
    found, saved = json.loads(ended.out), json.loads((run / "calibration.json").read_text())
    summary = json.loads((run / "summary.json").read_text())
    for name in ("nats_per_token", "bits_per_byte"):
        assert found[name][0] == pytest.approx(plain[name], rel=1e-6)
        assert found[name][0] == pytest.approx(summary["test"][name], rel=1e-6)
    assert found["fitted_nats_per_token"][0] == pytest.approx(summary["val"]["nats_per_token"])
    assert found["fitted_nats_per_token"][1] < found["fitted_nats_per_token"][0]
    assert found.items() >= {name: saved[name] for name in saved.keys() & found.keys()}.items()
    assert sum(band["tokens"] for band in saved["by_frequency"]) == plain["tokens"]
    assert sum(each["tokens"] for each in saved["reliability"]["before"]) == plain["tokens"]
    worst = saved["surprising"][0]
    cost = sum(mark["nats"] for mark in worst["marks"])
    assert cost == pytest.approx(120 * worst["nats_per_token"], rel=1e-5)
    read = Page((run / "calibration.html").read_text())
    assert f"{found['temperature']:.3f}" in read.text
    assert f"{found['expected_calibration_error'][0]:.4f}" in read.text
    shown = command("evaluate", run, "--calibration").out
    lines = [line.split(maxsplit=1) for line in shown.splitlines()]
    assert ["temperature", f"{found['temperature']:.5g}"] in lines
    assert [
        "nats_per_token",
        " → ".join(f"{nats:.5g}" for nats in found["nats_per_token"]),
    ] in lines


@pytest.mark.long
def test_a_lossy_tokenizer_is_calibrated(
    command: Command, train_run: Callable[..., Path], assets: Path
) -> None:
    """It has no bits per byte; its text is shown as it decodes."""
    run = train_run(
        "model=mlp", "model.n_embd=4", "model.n_hidden=4", "tokenizer=bert", "train.steps=1",
        "data.split=[0.96,0.02,0.02]", f"assets=[{assets}]",
    )  # fmt: skip
    found = json.loads(command("evaluate", run, "--calibration", "--json").out)
    assert found["bits_per_byte"] == [None, None]
    assert found["unused_probability"] > 0.9  # 30,522 ids, and the text has few
    # An untrained model's loss, ln V, would be that of a uniform guess among those few.
    seen = sum(band["ids"] for band in json.loads((run / "calibration.json").read_text())[
        "by_frequency"
    ][1:])  # fmt: skip
    assert found["unused_nats_per_token"] == pytest.approx(math.log(30522 / seen), rel=0.05)
    read = Page((run / "calibration.html").read_text())
    assert "green bottles, hanging on the wall ; and" in read.text
    assert "nats per token" in read.text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--split", "val"), "choose --split test or train"),
        ((), "data.split=[0.9, 0, 0.1] leaves no val split"),
    ],
)
def test_no_temperature_without_validation(
    options: tuple[str, ...], words: str, command: Command, train_run: Callable[..., Path]
) -> None:
    run = train_run("model=bigram", "train.steps=1", "data.split=[0.9,0,0.1]")
    ended = command("evaluate", run, "--calibration", *options)
    assert (ended.code, ended.out) == (2, "")
    assert words in ended.err
    assert not (run / "calibration.html").exists()
