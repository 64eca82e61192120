"""The grid of architectures by tasks: its columns, its words."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import pytest

from harness.report.records.runs import find_runs
from harness.report.statistics.paired import student
from harness.report.statistics.ranking import Comparison, compare_runs
from harness.report.statistics.skills import grid
from harness.report.text import skills as words
from harness.report.text.terminal import print_comparison
from tests.report.comparing import write_certificate, write_run


def of_task(
    folder: Path,
    model: str,
    data: str,
    accuracy: float,
    seed: int = 0,
    chance: float = 0.2,
    **settings: object,
) -> None:
    digest = hashlib.sha256(f"{data} {settings}".encode()).hexdigest()
    corpus = {"sha256": digest, "split": [0.5, 0.25, 0.25], "chance": chance}
    name = "-".join([model, data, *(str(each)[:20] for each in settings.values()), str(seed)])
    run = write_run(
        folder / name, model, seed, lossless=False, tokenizer="ids", data=data, corpus=corpus,
        config={"data": settings}, cache_bytes=4096,
    )  # fmt: skip
    document = json.loads((run / "summary.json").read_text())
    document["test"] |= {"accuracy": accuracy, "accuracy_error": 0.01}
    (run / "summary.json").write_text(json.dumps(document))
    write_certificate(run, document, "passed")


@pytest.fixture
def compared(tmp_path: Path) -> Comparison:
    of_task(tmp_path, "gpt", "recall", 0.9, pairs=4)
    of_task(tmp_path, "gpt", "recall", 0.8, pairs=8)
    of_task(tmp_path, "gru", "recall", 0.3, pairs=4)
    for seed, accuracy in enumerate((0.1, 0.2, 0.3)):
        of_task(tmp_path, "gru", "parity", accuracy, seed)
    write_run(tmp_path / "text", "gpt", data="text")
    return compare_runs(find_runs([tmp_path]), "test")


@pytest.mark.parametrize(("freedom", "half"), [(1, 12.706), (2, 4.303), (4, 2.776), (30, 2.042)])
def test_the_interval_is_that_of_the_tables(freedom: int, half: float) -> None:
    assert student(freedom) == pytest.approx(half, abs=1e-3)


def test_the_settings_of_a_task_name_its_columns(compared: Comparison) -> None:
    found = grid(compared)
    assert found is not None
    assert [words.called(task) for task in found.tasks] == [
        "parity",
        "recall, pairs=4",
        "recall, pairs=8",
    ]
    assert set(found.models) == {"gpt", "gru"}
    cells = [words.cell(found.models["gru"][1].get(task)) for task in found.tasks]
    assert cells == ["0.200 ± 0.248", "0.300 ± 0.020", "–"]  # Student's t of two: 4.303
    above = [found.models["gru"][1][task].above for task in found.tasks[:2]]
    assert above == [0.0, pytest.approx(0.125)]


def test_the_grid_is_printed(compared: Comparison) -> None:
    out = io.StringIO()
    print_comparison(compared, out)
    begin = out.getvalue().splitlines().index("Skills")
    table = [line.split() for line in out.getvalue().splitlines()[begin:]]
    at = table.index(["gpt", "gru"])
    assert table[at + 1] == ["task", "chance", "4.10", "kB", "4.10", "kB"]
    assert ["recall,", "pairs=4", "0.200", "0.900±0.020", "0.300±0.020"] in table


def test_many_models_stand_in_several_tables_with_nothing_cut_off(tmp_path: Path) -> None:
    names = [f"model_{number}" for number in range(20)]
    for number, name in enumerate(names):
        of_task(tmp_path, name, "recall", number / 100, pairs=4)
        of_task(tmp_path, name, "parity", number / 100 + 0.5)
    out = io.StringIO()
    print_comparison(compare_runs(find_runs([tmp_path]), "test"), out)
    lines = out.getvalue().partition("Skills\n")[2].partition("Accuracy on")[0].splitlines()
    assert [word for line in lines for word in line.split() if "model_" in word] == (sorted(names))
    for task, base in (("recall", 0.0), ("parity", 0.5)):
        row = " ".join(line for line in lines if task in line)
        assert all(f"{number / 100 + base:.3f}±0.020" in row for number in range(20))
    assert "…" not in "".join(lines)
    assert out.getvalue().startswith("Accuracy on tasks (2) by models (20): the grid below.")


def test_a_folder_from_elsewhere_does_not_end_the_report(tmp_path: Path) -> None:
    """A task that guessing solves, and a setting with more digits than Python reads."""
    of_task(tmp_path, "gpt", "easy", 1.0, chance=1.0)
    for number, pairs in enumerate(("9" * 5000, "10", "2")):
        of_task(tmp_path / str(number), "gpt", "recall", 0.9, pairs=pairs)
    found = grid(compare_runs(find_runs([tmp_path]), "test"))
    assert found is not None
    assert [task.data[:14] for task in found.tasks] == [
        "easy", "recall, pairs=", "recall, pairs=", "recall, pairs="
    ]  # fmt: skip
    assert [len(task.data) for task in found.tasks] == [4, 15, 16, 5014]
    assert found.models["gpt"][1][found.tasks[0]].above == 1.0


def test_texts_have_no_grid(tmp_path: Path) -> None:
    write_run(tmp_path / "text", "gpt")
    assert grid(compare_runs(find_runs([tmp_path]), "test")) is None
