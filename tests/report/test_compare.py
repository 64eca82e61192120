"""The command: what it prints and writes."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.report.records.runs import find_runs
from harness.report.statistics.ranking import compare_runs
from harness.report.text.verdict import headlines
from tests.conftest import Ended
from tests.report.comparing import printed, write_run


def test_plots_are_written(sweep: Path, tmp_path: Path, command: Callable[..., Ended]) -> None:
    ended = command("compare", sweep, "--plots", tmp_path / "plots")
    assert "16 files written" in ended.out
    names = {path.name for path in (tmp_path / "plots").iterdir()}
    assert {"validation-over-flops.svg", "test-against-parameters.png"} <= names
    assert len(names) == 16
    # A date or a random id would change the file with every call.
    assert "date>" not in (tmp_path / "plots" / "validation-over-flops.svg").read_text()


def test_output_that_is_not_a_terminal_is_plain_and_whole(sweep: Path) -> None:
    text = printed(sweep)
    assert "\x1b" not in text
    assert "…" not in text
    assert "peak memory" in text
    assert str(headlines(compare_runs(find_runs([sweep])))[0]) in text.splitlines()


def test_a_wrong_path_ends_in_one_line_and_code_2_without_torch(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['torch'] = sys.modules['matplotlib'] = None\n"
        "from harness.compare import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path}: no run here")
    assert len(done.stderr.splitlines()) == 1


def test_a_report_that_can_not_be_written_is_a_usage_error(
    tmp_path: Path, command: Callable[..., Ended]
) -> None:
    run = write_run(tmp_path / "run", "gpt")
    ended = command("compare", run, "--out", tmp_path)
    assert ended.code == 2
    assert ended.err.startswith("error: ")
    assert "can't be written" in ended.err


def test_a_report_is_html_and_nothing_else(tmp_path: Path, command: Callable[..., Ended]) -> None:
    run = write_run(tmp_path / "run", "gpt")
    ended = command("compare", run, "--out", tmp_path / "c.pdf")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == f"error: --out {tmp_path / 'c.pdf'} should end in .html\n"
    assert not (tmp_path / "c.pdf").exists()


@pytest.mark.filterwarnings("ignore:Glyph")
def test_a_name_that_is_no_text_spoils_no_output(
    tmp_path: Path, command: Callable[..., Ended]
) -> None:
    """JSON may name half a surrogate pair, which is no character."""
    write_run(tmp_path / "r" / "a", "gpt\udc80\x1b", 0, config={"key": "\ud800"})
    names = ("--markdown", "--csv", "--runs-csv", "--out", "--plots")
    files = [tmp_path / name[2:] for name in names]
    options = [text for pair in zip(names, map(str, files), strict=True) for text in pair]
    assert command("compare", tmp_path / "r", *options).code == 0
    assert all(b"gpt" in path.read_bytes() for path in files[:4])
    assert "gpt\ufffd\ufffd" in (tmp_path / "out").read_text()


def test_markdown_and_csv_hold_the_same_numbers(
    tmp_path: Path, command: Callable[..., Ended]
) -> None:
    write_run(tmp_path / "r" / "a", "gpt", 0, test=2.0)
    write_run(tmp_path / "r" / "b", "gpt", 1, test=2.2)
    write_run(tmp_path / "r" / "c", "mlp", 0, test=None, status="failed", error="no, really")
    write_run(tmp_path / "r" / "d", "rnn", 0, test=1.5, lossless=False, tokenizer="bert")
    files = {name: tmp_path / name for name in ("--markdown", "--csv", "--runs-csv")}
    options = [text for name, path in files.items() for text in (name, str(path))]
    assert command("compare", tmp_path / "r", *options).code == 0
    table = [line for line in files["--markdown"].read_text().splitlines() if line[:1] == "|"]
    assert "2.100 ± 0.141" in table[2]
    first, lossy = csv.DictReader(files["--csv"].open())
    assert (first["place"], first["model"], first["seeds"]) == ("1", "gpt", "2")
    assert float(first["test bits per byte"]) == pytest.approx(2.1)
    assert float(first["test bits per byte ±"]) == pytest.approx(0.141421, rel=1e-5)
    assert (lossy["place"], lossy["test bits per byte"], lossy["test nats per token"]) == (
        "", "", "1.5",
    )  # fmt: skip
    lines = list(csv.DictReader(files["--runs-csv"].open()))
    assert [line["test bits_per_byte"] for line in lines] == ["2.0", "2.2", "", ""]
    assert lines[2]["not counted because"] == "no, really"
