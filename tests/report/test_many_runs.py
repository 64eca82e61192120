"""The work of a comparison grows with the number of runs, not with its square."""

from __future__ import annotations

import io
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from harness.report.html.document import write_report
from harness.report.records.names import run_names
from harness.report.records.runs import RunRecord, read_run
from harness.report.statistics.ranking import compare_runs
from harness.report.text import export
from harness.report.text.terminal import print_comparison
from harness.runs.metrics import Metrics
from harness.runs.summary import TrainCost
from tests.report.comparing import write_run


def lines_run(work: Callable[[], object]) -> Counter[str]:
    """How often each line of ours is run, those of templates and the turns of loops included."""
    count: Counter[str] = Counter()

    def tracing(frame: FrameType, event: str, argument: Any) -> Any:
        where = frame.f_code.co_filename
        if event == "call" and "/harness/report/" not in where:
            return None
        if event == "line":
            count[f"{where}:{frame.f_lineno}"] += 1
        return tracing

    sys.settrace(tracing)
    try:
        work()
    finally:
        sys.settrace(None)
    return count


def many(run: RunRecord, number: int) -> list[RunRecord]:
    """Every two runs are one configuration; a tenth is not counted; folders share their ends."""
    return [
        replace(
            run,
            metrics=Metrics(),  # no figures: they cost the same for any number
            train=TrainCost(),
            parameters=None,
            folder=run.folder / f"{n}" / "gpt",
            seed=n % 2,
            config={**run.config, "optimizer.lr": f"{n // 2}", "model.n_layer": f"{n // 2 % 7}"},
            error="boom" if n % 10 == 9 else None,
            status="failed" if n % 10 == 9 else "finished",
        )
        for n in range(number)
    ]


def test_twice_the_runs_are_twice_the_work(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "gpt", "gpt", blocks=[1.0] * 40))

    def work(number: int) -> Counter[str]:
        records = many(run, number)

        def everything() -> None:
            comparison = compare_runs(records)
            assert len(comparison.records) == number
            write_report(comparison, tmp_path / "report.html", [tmp_path])
            print_comparison(comparison, io.StringIO())
            export.markdown(comparison)
            export.csv_table(comparison)

        return lines_run(everything)

    work(10)  # imports and caches
    small, middle, large = work(30), work(60), work(120)
    assert large.total() > 20_000
    more = {
        name: (middle[name] - small[name], large[name] - middle[name])
        for name in large
        if large[name] - middle[name] > 2.2 * max(0, middle[name] - small[name]) + 200
    }
    assert more == {}


def test_names_of_runs_are_the_shortest_that_differ() -> None:
    folders = ["/a/x/gpt", "/a/y/gpt", "/b/y/gpt", "/b/mlp", "/c/c/mlp"]
    found = run_names(map(Path, folders))
    assert [found[Path(folder)] for folder in folders] == [
        "x/gpt",
        "a/y/gpt",
        "b/y/gpt",
        "b/mlp",
        "c/mlp",
    ]
    assert run_names([Path("/gpt"), Path("/a/gpt")]) == {
        Path("/gpt"): "//gpt",
        Path("/a/gpt"): "a/gpt",
    }
