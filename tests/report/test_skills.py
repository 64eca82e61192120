"""The grid of architectures by tasks: its columns, its words."""

from __future__ import annotations

import hashlib
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest

from harness.report.records.runs import find_runs
from harness.report.statistics import skills
from harness.report.statistics.paired import student
from harness.report.statistics.ranking import Comparison, compare_runs
from harness.report.statistics.skills import exact_interval, grid
from harness.report.text import skills as words
from harness.report.text.terminal import print_comparison
from harness.runs.summary import Scored
from tests.report.comparing import write_certificate, write_run


def of_task(
    folder: Path,
    model: str,
    data: str,
    accuracy: float,
    seed: int = 0,
    chance: float = 0.2,
    error: float = 0.01,
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
    document["test"] |= {"accuracy": accuracy, "accuracy_error": error, "documents": 250}
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


@pytest.mark.parametrize(
    ("hits", "number", "low", "high"),
    [(10, 10, 0.025**0.1, 1.0), (0, 10, 0.0, 1 - 0.025**0.1), (8, 20, 0.191, 0.639)],
)
def test_the_exact_interval(hits: int, number: int, low: float, high: float) -> None:
    """Closed forms at the ends; 8 of 20 by the tables of Clopper and Pearson."""
    found = exact_interval(hits / number, number)
    assert found == pytest.approx((low, high), abs=1e-3 if 0 < hits < number else 1e-6)
    for end, side in zip(found, (1, -1), strict=True):
        if 0 < end < 1:  # the binomial tail beyond what was seen is 2.5 %
            seen = range(hits, number + 1) if side > 0 else range(hits + 1)
            tail = sum(math.comb(number, n) * end**n * (1 - end) ** (number - n) for n in seen)
            assert tail == pytest.approx(0.025, rel=1e-3)


def test_a_solver_s_interval_is_not_a_point(tmp_path: Path) -> None:
    """Of 250 of 250 examples; more seeds on the same examples make it no narrower."""
    of_task(tmp_path, "gpt", "recall", 1.0, error=0.0)
    for seed in range(3):
        of_task(tmp_path, "gru", "recall", 1.0, seed, error=0.0)
        of_task(tmp_path, "rnn", "recall", 0.0, seed, error=0.0)
    found = grid(compare_runs(find_runs([tmp_path]), "test"))
    assert found is not None
    shown = {name: words.cell(cells[found.tasks[0]]) for name, (_, cells) in found.models.items()}
    assert shown == {
        "gpt": "1.000 (0.985 to 1.000)",
        "gru": "1.000 (0.985 to 1.000)",
        "rnn": "0.000 (0.000 to 0.015)",
    }
    assert "does not show that the next one would" in words.NOTE


@pytest.mark.parametrize("answers", [1, 4])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.99, 0.998])
def test_the_interval_holds_the_truth_at_the_edges(share: float, answers: int) -> None:
    """Of 250 examples, each right or wrong in all of its answers. By ±1.96 standard errors a share
    of 0.998 was held in 39 of 100."""
    hits = np.random.default_rng(0).binomial(250, share, 4000)
    held = 0
    for value, times in zip(*np.unique(hits, return_counts=True), strict=True):
        own = value / 250
        error = math.sqrt(own * (1 - own) / 249)
        score = Scored(accuracy=own, accuracy_error=error, tokens=250 * answers, documents=250)
        found = skills._over_seeds([score], 0.0)
        assert found.interval is not None
        held += times * (found.interval[0] <= share <= found.interval[1])
    assert held / 4000 >= 0.93


def test_the_interval_of_seeds_has_both_sources() -> None:
    """The exact one of the examples and Student's t of the seeds, added as squares."""
    scores = [
        Scored(accuracy=share, accuracy_error=0.02, tokens=10_000, documents=500)
        for share in (0.6, 0.7, 0.8)
    ]
    found = skills._over_seeds(scores, 0.0)
    low, high = exact_interval(0.7, 0.7 * 0.3 / 0.02**2)
    half = 4.303 * 0.1 / math.sqrt(3)
    assert found.interval == pytest.approx(
        (0.7 - math.hypot(0.7 - low, half), 0.7 + math.hypot(high - 0.7, half)), abs=1e-4
    )


@pytest.mark.parametrize("error", [None, 0.0, 1e-200, 1e200, 5.0, -1.0])
@pytest.mark.parametrize("share", [-2.0, 0.0, 0.5, 1.0, 7.0])
def test_scores_from_elsewhere_end_no_report(share: float, error: float | None) -> None:
    for number in (None, 0, -3, 250, 1e300):
        score = Scored(accuracy=share, accuracy_error=error, tokens=number, documents=number)
        words.cell(skills._over_seeds([score, score], 0.2))
        words.cell(skills._over_seeds([score], 0.2))


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
    # Student's t of two: 4.303; the exact interval of 1000 answers at most.
    assert cells == ["0.200 (0.000 to 0.450)", "0.300 (0.272 to 0.329)", "–"]
    above = [found.models["gru"][1][task].above for task in found.tasks[:2]]
    assert above == [0.0, pytest.approx(0.125)]


def test_the_grid_is_printed(compared: Comparison) -> None:
    out = io.StringIO()
    print_comparison(compared, out)
    begin = out.getvalue().splitlines().index("Skills")
    table = [line.split() for line in out.getvalue().splitlines()[begin:]]
    at = table.index(["gpt", "gru"])
    assert table[at + 1] == ["task", "chance", "4.10", "kB", "4.10", "kB"]
    row = "recall, pairs=4 0.200 0.900 (0.879 to 0.919) 0.300 (0.272 to 0.329)"
    assert row.split() in table


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
        for share in (number / 100 + base for number in range(20)):
            answers = min(1000, share * (1 - share) / 0.01**2) or 250
            low, high = exact_interval(share, answers)
            assert f"{share:.3f} ({low:.3f} to {high:.3f})" in row
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
