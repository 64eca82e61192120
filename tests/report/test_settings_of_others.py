"""No figure depends on how the user has set matplotlib up."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import pytest

from harness.common.paths import REPOSITORY
from harness.report.drawing import inside
from harness.report.drawing.own_matplotlib import own_style
from harness.report.html import figures
from harness.report.records.runs import find_runs
from harness.report.statistics.ranking import compare_runs
from tests.conftest import Ended
from tests.waiting import GUARD

# A backend that is not installed, LaTeX, and a style of which nothing must be seen.
STYLE = {
    "text.usetex": True, "font.size": 40, "figure.dpi": 300, "savefig.bbox": "tight",
    "lines.linewidth": 9, "svg.fonttype": "path", "axes.facecolor": "red", "axes.grid": True,
    "xtick.top": True, "axes.prop_cycle": "cycler('linewidth', [1, 2])",
}  # fmt: skip


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.long
def test_a_users_backend_and_style_change_no_figure(
    sweep: Path, command: Callable[..., Ended], tmp_path: Path
) -> None:
    """In a process of its own: matplotlib reads them when it is imported."""
    (home := tmp_path / "home").mkdir()
    lines = [f"{key}: {value}" for key, value in (STYLE | {"backend": "nope"}).items()]
    (home / "matplotlibrc").write_text("\n".join(lines))
    assert command("compare", sweep, "--out", "a.html", "--plots", tmp_path / "plots").code == 0
    environment = {"MPLBACKEND": "module://nope", "MATPLOTLIBRC": str(home / "matplotlibrc")}
    ended = subprocess.run(
        [sys.executable, "-m", "harness.compare", sweep, "--out", "a.html", "--plots", "plots"],
        cwd=home, env=os.environ | environment | {"MPLCONFIGDIR": str(home)},
        capture_output=True, text=True, timeout=GUARD,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "matplotlib" not in ended.stderr
    assert len(files(home / "plots")) > 10
    assert files(home / "plots") == files(tmp_path / "plots")
    assert (home / "a.html").read_text() == (tmp_path / "here" / "a.html").read_text()


@pytest.mark.long
def test_a_style_that_was_set_since_changes_no_figure(
    sweep: Path, finished_run: Path, tmp_path: Path
) -> None:
    """As a class of the user's own may; and it is as it was afterwards."""
    comparison = compare_runs(find_runs([sweep]))

    def drawn() -> list[Any]:
        inside.write_figure(inside.observed([finished_run]), tmp_path / "inside.png")
        found = (tmp_path / "inside.png").read_bytes()
        return [figures.costs(comparison), figures.curves(comparison), found]

    plain = drawn()
    with matplotlib.rc_context(STYLE):
        assert drawn() == plain
        assert matplotlib.rcParams["text.usetex"] is True
        with own_style():
            assert matplotlib.rcParams["text.usetex"] is False


def test_a_file_that_matplotlib_can_not_read_is_one_line(sweep: Path, tmp_path: Path) -> None:
    """One in the working folder comes before all others, whatever is set."""
    (tmp_path / "matplotlibrc").write_bytes(b"\xff\xfe")
    ended = subprocess.run(
        [sys.executable, "-m", "harness.compare", sweep],
        cwd=tmp_path, capture_output=True, text=True, timeout=GUARD,
    )  # fmt: skip
    assert ended.returncode == 2
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("error: matplotlib can't read ./matplotlibrc: ")
    assert "Traceback" not in ended.stderr


def test_matplotlib_is_imported_in_one_place() -> None:
    imports = re.compile(r"^\s*(?:import|from) matplotlib\b", re.MULTILINE)
    found = [
        str(path.relative_to(REPOSITORY / "harness"))
        for path in (REPOSITORY / "harness").rglob("*.py")
        if imports.search(path.read_text())
    ]
    assert found == ["report/drawing/own_matplotlib.py"]
