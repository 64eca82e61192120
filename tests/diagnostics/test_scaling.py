"""Time and memory of a step as context and width grow."""

from __future__ import annotations

import csv
import math
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from harness.common.errors import UsageError
from harness.compute.memory import PeakMemory
from harness.diagnostics import scaling
from harness.diagnostics.scaling import ScalingPoint, places, write_csv
from harness.report.drawing import scaling as drawing
from harness.report.drawing.own_matplotlib import Figure
from harness.training.run import load_dataset
from tests.small_runs import settings

POINT = ScalingPoint("gpt", "context", 64, 32, 64, 100, 2e9, 0.5, 3_000_000)
POINTS = [
    POINT,
    replace(POINT, value=128, flops=3e9, seconds=2.0, memory=5_000_000),
    replace(POINT, axis="width", value=1),
    replace(POINT, axis="width", value=2, flops=8e9, seconds=1.0, memory=9_000_000),
]


def test_every_point_has_as_many_tokens_and_one_axis_grows() -> None:
    found = list(places("wavenet", ["seed=1"]))
    assert [(axis, value) for axis, value, _ in found] == [
        *(("context", context) for context in scaling.CONTEXTS),
        *(("width", factor) for factor in scaling.WIDTHS),
    ]
    for axis, value, words in found:
        own = dict(word.split("=") for word in words)
        assert int(own["train.seq_len"]) * int(own["train.batch_size"]) == scaling.TOKENS
        assert ("model.channels_gate" in own) == (axis == "width")
        if axis == "width":
            assert int(own["model.channels_gate"]) == int(own["model.n_embd"]) == 96 * value
    assert {axis for axis, *_ in places("ngram", [])} == {"context"}  # it has no width


def test_a_point_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All micro-batches of a step, and memory before anything else is built."""
    words = ("model=mlp", "model.n_hidden=8", "train.batch_size=3", "train.accumulate=2")
    small = settings(tmp_path / "a", *words)
    read: list[int] = []
    monkeypatch.setattr(scaling, "compose", lambda words: words)
    monkeypatch.setattr(scaling, "read_settings", lambda words: small)
    monkeypatch.setattr(PeakMemory, "read", lambda self: read.append(1) or 1000 * len(read))
    count = scaling.flops_per_step
    monkeypatch.setattr(
        scaling, "flops_per_step", lambda *given: count(*given) if len(read) == 2 else math.nan
    )
    found = scaling.measure("mlp", "width", 2, [])
    assert (found.batch_size, found.seq_len, found.memory) == (6, 16, 1000)
    assert found.seconds > 0
    vocabulary = load_dataset(small).tokenizer.vocab_size
    weights = 16 * 32 * 8 + 8 * 8 + 8 * vocabulary  # context · n_embd · n_hidden, and so on
    assert found.flops == 3 * 2 * weights * 6 * 16
    assert replace(found, flops=4e9, seconds=2.0).rate == 2.0


def test_documents_have_no_context_to_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some = settings(tmp_path / "a", "model=mlp", "data=lines", "data.path=the-corpus")
    monkeypatch.setattr(scaling, "compose", lambda words: words)
    monkeypatch.setattr(scaling, "read_settings", lambda words: some)
    with pytest.raises(UsageError, match="is not the context"):
        scaling.measure("mlp", "context", 64, [])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--scaling", "a.csv", "train.batch_size=3"], "chooses train.batch_size"),
        (["--scaling"], "takes the file"),
        (["--scaling", "a.txt"], "takes the file"),
    ],
)
def test_what_it_chooses_itself_is_refused(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", *words])
    with pytest.raises(UsageError, match=message):
        scaling.scaling()


def test_figures_are_written_as_they_were_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_csv(tmp_path / "a.csv", POINTS)
    rows = csv.DictReader((tmp_path / "a.csv").open())
    kinds = {name: type(value) for name, value in asdict(POINT).items()}
    found = [{name: kinds[name](text) for name, text in row.items()} for row in rows]
    assert [ScalingPoint(**each) for each in found] == POINTS
    drawn: list[list[list[float]]] = []
    save = Figure.savefig

    def watched(figure: Figure, *args: object, **kwargs: object) -> None:
        drawn.extend([list(map(list, line.get_xydata())) for line in axes.lines]
                     for axes in figure.axes)  # fmt: skip
        save(figure, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Figure, "savefig", watched)
    drawing.write_scaling(tmp_path / "a.png", POINTS)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    # Time measured and counted, then memory; context to the left, width to the right.
    assert drawn == [
        [[[64, 500], [128, 2000]], [[64, 500], [128, 750]]],
        [[[1, 500], [2, 1000]], [[1, 500], [2, 2000]]],
        [[[64, 3], [128, 5]]],
        [[[1, 3], [2, 9]]],
    ]
