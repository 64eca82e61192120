"""Selection never reads test: what has not been chosen is shown by its validation score."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from harness.live.watch import LiveRun
from harness.report.records.runs import find_runs, read_run
from harness.report.records.selection import split_to_show
from harness.report.statistics.ranking import compare_runs
from harness.runs.folder import RunFolder
from harness.runs.summary import read_summary
from harness.runs.test_reads import FILE
from harness.training.outcome import result_line
from tests.report.comparing import page, printed, write_run
from tests.training.sweeps import Command

SECRET = 1.23456
"""The test score of a variant."""
SHOWN = re.compile(r"1\.23[45]")
"""As any command would show it."""


def variants(folder: Path, **summary: object) -> Path:
    for rate in (1, 2):
        for seed in (0, 1):
            run = write_run(
                folder / f"gpt-{rate}-{seed}", "gpt", seed, test=SECRET,
                config={"optimizer": {"lr": rate}}, blocks=range(1, 41), test_bytes=40 * 256,
                **summary,
            )  # fmt: skip
            with_validation(run, 2 + rate + seed / 10)
    with_validation(write_run(folder / "mlp", "mlp", test=SECRET, **summary), 3.3)
    return folder


def with_validation(run: Path, score: float) -> None:
    document = json.loads((run / "summary.json").read_text())
    document["val"] = document["val"] | {"bits_per_byte": score, "nats_per_token": score}
    (run / "summary.json").write_text(json.dumps(document))
    rows = run / "metrics.jsonl"
    rows.write_text(rows.read_text().replace(str(SECRET), str(score)))


def test_the_split_of_a_set_of_runs(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", "gpt", config={"n_layer": 1})
    again = write_run(tmp_path / "again", "gpt", 1, config={"n_layer": 1})
    two = write_run(tmp_path / "two", "gpt", config={"n_layer": 2})
    bytes_ = write_run(tmp_path / "bytes", "gpt", tokenizer="bytes", config={"n_layer": 3})
    for order in (5, 7):
        floor = {"total": 0, "state": 9}
        write_run(tmp_path / f"{order}", "ngram", config={"order": order}, parameters=floor)
    failed = write_run(tmp_path / "failed", "gpt", test=None, config={"n_layer": 4})
    alone = write_run(tmp_path / "alone", "mlp", candidate=True)

    def shown(*folders: Path) -> str:
        return split_to_show([read_run(folder) for folder in folders])

    assert shown(one, again, bytes_, failed, tmp_path / "5", tmp_path / "7") == "test"
    assert shown(one, again, two) == "val"
    assert shown(alone) == "val"
    assert shown(one, alone) == "val"


def test_variants_are_ranked_on_validation_and_test_is_nowhere(tmp_path: Path) -> None:
    folder = variants(tmp_path / "runs")
    comparison = compare_runs(find_runs([folder]))
    assert [group.score.mean for group in comparison.ranked if group.score] == [3.05, 3.3, 4.05]
    assert comparison.pairs == ()
    text, html = printed(folder), page(folder, tmp_path / "report.html")
    assert "reaches 3.050 ± 0.071 validation bits per byte" in text
    assert "3.050 ± 0.071" in html
    for shown in (text, html):
        assert "Validation is shown" in shown
        assert not SHOWN.search(shown)


@pytest.mark.parametrize("option", ["--csv", "--runs-csv", "--markdown", "--out"])
def test_no_file_of_compare_holds_a_test_score(
    command: Command, tmp_path: Path, option: str
) -> None:
    folder, out = variants(tmp_path / "runs"), tmp_path / "out"
    ended = command("compare", str(folder), option, str(out))
    assert ended.code == 0, ended.err
    assert not SHOWN.search(ended.out + out.read_text())
    assert not list(folder.rglob(FILE))


def test_test_is_read_by_asking_for_it_and_each_reading_is_logged(
    command: Command, tmp_path: Path
) -> None:
    folder = variants(tmp_path / "runs", candidate=True)
    ask = ("compare", str(folder / "gpt-1-0"), "--split", "test")
    for _ in range(2):
        assert f"{SECRET:.3f}" in command(*ask).out
    lines = (folder / "gpt-1-0" / FILE).read_text().splitlines()
    assert ["--split test" in json.loads(line)["command"] for line in lines] == [True, True]
    assert len(list(folder.rglob(FILE))) == 1


def test_test_that_cannot_be_logged_is_not_read(command: Command, tmp_path: Path) -> None:
    folder = variants(tmp_path / "runs")
    (folder / "mlp" / FILE).mkdir()
    ended = command("compare", str(folder), "--split", "test")
    assert ended.code == 1
    assert f"{FILE} can't be written" in ended.err
    assert not SHOWN.search(ended.out)


def test_fixed_models_are_compared_on_test_without_a_log(command: Command, tmp_path: Path) -> None:
    write_run(tmp_path / "gpt", "gpt", test=2.5)
    write_run(tmp_path / "mlp", "mlp", test=2.6)
    assert "2.500 test bits per byte" in command("compare", str(tmp_path)).out
    command("compare", str(tmp_path), "--split", "test")
    assert not list(tmp_path.rglob(FILE))
    assert "validation bits per byte" in command("compare", str(tmp_path), "--split", "val").out


def test_the_live_page_and_loggers_show_no_test_of_a_candidate(tmp_path: Path) -> None:
    for candidate in (False, True):
        extra = {"candidate": True} if candidate else {}
        folder = write_run(tmp_path / f"{candidate}", "gpt", test=SECRET, **extra)
        run = LiveRun(folder)
        run.look()
        summary = read_summary(folder)
        shown = (run.card or {})["test"], summary.shown()["test"]
        assert [value is None for value in shown] == [candidate] * 2
        assert ("test 1.2346" in result_line(summary, RunFolder(folder))) is not candidate
