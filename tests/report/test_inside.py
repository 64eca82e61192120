"""The figure of what was seen inside runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.common.errors import UsageError
from harness.report.drawing import inside
from tests.conftest import Ended

ROWS: list[dict[str, Any]] = [
    {
        "step": 0,
        "activations/blocks.0/std": 0.5,
        "activations/blocks.0.relu/std": 0.4,
        "activations/blocks.0.relu/inactive": 0.25,
        "activations/blocks.0/histogram": {"counts": [1], "edges": [0, 1]},
        "activations/blocks.1/std": 0.7,
        "updates/a.weight/log10_ratio": -2.5,
        "updates/a.bias/log10_ratio": 1.5,
        "weights/a.weight/spectral_norm": 2.0,
        "attention/blocks.0.attention/entropy/0": 1.1,
        "attention/blocks.0.attention/entropy/1": 0.1,
    },
    {"step": 1, "train/loss": 3.0},
    {
        "step": 4,
        "dead/blocks.0.relu/share": 0.125,
        "val/loss_by_position/0": 3.0,
        "val/loss_by_position/1": 2.0,
        "val/loss_by_position/2-3": 1.5,
    },
]


def write(folder: Path, rows: list[dict[str, Any]], end: str = "\n") -> Path:
    folder.mkdir()
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(text + end.removeprefix("\n"))
    return folder


def test_rows_without_anything_seen_and_a_torn_line_are_passed_over(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", ROWS, '{"step": 5, "dead/blocks.0.re')
    assert [row["step"] for row in inside.read(folder)] == [0, 4]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", ROWS, '{"step": 5, "dead/blocks.0.relu/share": NaN}\n')
    with pytest.raises(UsageError, match="line 4 is not a row of strict JSON"):
        inside.read(folder)


def test_numbers_by_their_place() -> None:
    assert inside.series(ROWS, "activations/", "/std") == {
        "blocks.0": [(0, 0.5)],
        "blocks.0.relu": [(0, 0.4)],
        "blocks.1": [(0, 0.7)],
    }
    assert inside.series(ROWS, "dead/", "/share") == {"blocks.0.relu": [(4, 0.125)]}


def test_each_panel_draws_what_was_seen() -> None:
    """Read back from the figure: lines, bars, and what is said under them."""
    figure = inside.draw(["one", "none"], [ROWS, [{"step": 0, "updates/a/log10_ratio": -3.0}]])
    updates, spread, rest, attention, positions = figure.axes[::2]
    usual, thin, bold = (list(line.get_ydata()) for line in updates.lines)
    assert usual == [-3, -3]
    assert thin == bold == [-2.5]  # the bias is no matrix
    assert list(spread.lines[0].get_ydata()) == [0.5, 0.7]  # the blocks alone
    assert [bar.get_height() for bar in rest.patches] == [0.25, 0.125]
    assert sorted(line.get_ydata()[0] for line in attention.lines) == [0.1, pytest.approx(0.6), 1.1]
    assert list(positions.lines[0].get_ydata()) == [3.0, 2.0, 1.5]
    assert list(positions.lines[0].get_xdata()) == [1, 2, 3]
    said = [axes.get_xlabel() for axes in figure.axes[1::2]]
    assert said[2:4] == [
        "no nonlinearity was seen",
        "attention or gates: not observed (observe=full)",
    ]


def test_a_folder_is_its_runs_and_what_was_not_observed_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "all").mkdir()
    seen = write(tmp_path / "all" / "seen", ROWS)
    write(tmp_path / "all" / "counted", [{"step": 0, "train/loss": 3.0}])
    assert list(inside.observed([tmp_path / "all"])) == [seen]
    assert capsys.readouterr().err.endswith("counted was not observed\n")
    # With observe=full it would have been seen, had it been there.
    full = inside.draw(["full"], [[ROWS[0] | {"attention/blocks.0.attention/entropy/0": None}]])
    assert full.axes[3].get_xlabel() == "step; nats of each head"
    bare = {"step": 0, "weights/a.weight/spectral_norm": 2.0}
    assert inside.draw(["bare"], [[bare]]).axes[3].get_xlabel() == "no attention or gates was seen"


def test_the_command_draws_a_real_run(
    tmp_path: Path, train_run: Callable[..., Path], command: Callable[..., Ended]
) -> None:
    run = train_run("model=mlp", "model.n_hidden=8", "observe=full", "train.steps=2")
    ended = command("inside", run, "--out", tmp_path / "inside.svg")
    assert (ended.code, ended.out.strip()) == (0, str(tmp_path / "inside.svg"))
    assert "<svg" in (tmp_path / "inside.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is not a run's folder"),
        (["RUN"], "was not observed; train with observe=basic or full"),
        (["RUN", "--out", "a.pdf"], "--out a.pdf should end in .png or .svg"),
        (["FOLDER"], "7 runs are too many for one figure: 6 fit"),
        (["RUN", "--ot", "a.png"], "there is no option --ot. Did you mean --out?"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, command: Callable[..., Ended], arguments: list[str], message: str
) -> None:
    run = write(tmp_path / "unseen", [{"step": 0, "train/loss": 3.0}])
    (tmp_path / "seven").mkdir()
    for number in range(7):
        write(tmp_path / "seven" / f"{number}", ROWS)
    places = {"RUN": str(run), "FOLDER": str(tmp_path / "seven")}
    ended = command("inside", *(places.get(each, each) for each in arguments))
    assert ended.code == 2
    assert message in ended.err
    assert ended.err.count("\n") == 1
