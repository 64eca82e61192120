"""What a comparison says, and where it must say less."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from harness.report.drawing.curves import CURVE_AXES, SCATTER_COSTS, as_measured
from harness.report.records.runs import find_runs
from harness.report.statistics.ranking import compare_runs
from harness.report.text.columns import columns
from harness.report.text.export import csv_runs
from harness.report.text.format import human
from harness.report.text.terminal import print_comparison
from harness.report.text.verdict import best_by_tokenizer, equality_lines, headlines, notes
from tests.report.comparing import printed, write_run


def test_a_text_that_costs_nothing_can_be_compared(tmp_path: Path) -> None:
    for model in ("gpt", "mlp"):
        write_run(tmp_path / model, model, test=0.0)
    (line,) = headlines(compare_runs(find_runs([tmp_path])))
    assert "0.000 below" in str(line)


def test_one_seed_shows_no_spread(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "gpt", test=2.0)
    write_run(tmp_path / "b", "mlp", test=2.5)
    text = printed(tmp_path)
    assert "2.000" in text
    assert "±" not in text.split("Mean ±")[0]
    assert "One seed: no spread known." in text


def test_headline_says_by_how_much_and_whether_the_order_is_settled(tmp_path: Path) -> None:
    for seed, first, second in ((0, 2.0, 2.5), (1, 2.2, 2.7)):
        write_run(tmp_path / f"a{seed}", "gpt", seed, test=first)
        write_run(tmp_path / f"b{seed}", "mlp", seed, test=second)
    (line,) = map(str, headlines(compare_runs(find_runs([tmp_path]))))
    assert "gpt reaches 2.100 ± 0.141 test bits per byte on text (2 seeds)" in line
    assert "0.500 (19.2%) below mlp" in line
    assert "Each of its seeds is better" in line
    assert "Equal budget: 100 steps, 6,400 training tokens" in line
    write_run(tmp_path / "b2", "mlp", 2, test=2.1)
    (line,) = map(str, headlines(compare_runs(find_runs([tmp_path]))))
    assert "not settled" in line


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({"steps": 200}, "steps (100 to 200); training tokens"),
        ({"text_bytes": 6500}, "bytes of text (6,400 to 6,500)"),
        ({"test_bytes": 990}, "test split (990 to 1.00 k bytes scored)"),
        ({"stride": 64}, "evaluation stride (32, 64)"),
        ({"data": "other"}, "data sets (text, other), ranked apart"),
    ],
)
def test_an_unequal_comparison_says_so(tmp_path: Path, change: dict[str, Any], note: str) -> None:
    write_run(tmp_path / "a", "gpt", test=2.0)
    write_run(tmp_path / "b", "mlp", test=2.5)
    assert notes(compare_runs(find_runs([tmp_path]))) == []
    write_run(tmp_path / "c", "table", test=2.7, **change)
    (line,) = [line for line in printed(tmp_path).splitlines() if line.startswith("!")]
    assert line.startswith("! Not an equal comparison. These differ: ")
    assert note in line


def test_what_varies_by_nature_is_no_inequality(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "gpt", test=2.0)
    # A streaming pass has no stride, and batches of another tokenizer hold a few bytes more.
    write_run(tmp_path / "b", "rnn", stride=None, text_bytes=6440, flops_per_token=7)
    assert notes(compare_runs(find_runs([tmp_path]))) == []


def test_other_code_and_other_machines_are_noted(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "gpt", test=2.0)
    write_run(
        tmp_path / "b", "mlp", git={"commit": "def", "dirty": False}, machine={"device": "cuda"}
    )
    code, machine = notes(compare_runs(find_runs([tmp_path])))
    assert "different versions of the code" in code
    assert "different machines" in machine


def test_equal_devices_of_several_numbers_are_one_machine(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "gpt", test=2.0, machine={"device": "cuda:0", "name": "H"})
    write_run(tmp_path / "b", "mlp", machine={"device": "cuda:1", "name": "H"})
    assert notes(compare_runs(find_runs([tmp_path]))) == []


def test_seconds_beside_other_jobs_are_marked_wherever_they_are_shown(tmp_path: Path) -> None:
    write_run(tmp_path / "alone", "mlp", test=2.5)
    for seed in (0, 1):
        write_run(tmp_path / f"beside-{seed}", "gpt", seed)
    summary = tmp_path / "beside-1" / "summary.json"
    document = json.loads(summary.read_text())
    document["train"]["beside"] = 3
    summary.write_text(json.dumps(document))
    comparison = compare_runs(find_runs([tmp_path]))
    (note,) = notes(comparison)
    assert note.startswith(
        "* Seconds and speeds measured while other jobs of the sweep (at most 3)"
    )
    by_model = {group.model: group for group in comparison.ranked}
    timed = {
        (column.header, column.unit): column.read
        for column in columns(comparison.ranked, lossy=False)
        if column.unit in ("s", "tokens/s")
    }
    assert timed["training", "s"](by_model["gpt"]) == ("10*", 10.0)
    assert timed["training", "s"](by_model["mlp"]) == ("10", 10.0)
    assert timed["speed", "tokens/s"](by_model["gpt"])[0] == "640*"
    assert "seconds*" in " ".join(equality_lines(comparison))
    assert csv_runs(comparison.records).splitlines()[0].endswith("train beside")
    seconds = {cost.name: cost for cost in (*CURVE_AXES, *SCATTER_COSTS)}["seconds"]
    assert as_measured(seconds, comparison.ranked).title.endswith("(some beside other jobs)")
    assert as_measured(seconds, [by_model["mlp"]]) == seconds


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (65, "65"), (999.6, "1.00 k"), (1530000, "1.53 M"), (892315, "892 k"),
     (4.1e9, "4.10 G"), (999_600, "1.00 M"), (0.5, "0.5")],
)  # fmt: skip
def test_numbers_are_written_with_three_digits(number: float, text: str) -> None:
    assert human(number) == text


def test_the_best_with_each_tokenizer_is_named(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "gpt", test=2.0)
    assert best_by_tokenizer(compare_runs(find_runs([tmp_path]))) == []
    write_run(tmp_path / "b", "mlp", test=1.5)
    write_run(tmp_path / "c", "gpt", test=2.5, tokenizer="p50k")
    (found,) = best_by_tokenizer(compare_runs(find_runs([tmp_path])))
    assert "char: mlp, 1.500; p50k: gpt, 2.500" in found


def test_the_best_with_each_tokenizer_is_one_of_the_same_text(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "gpt", test=2.0)
    write_run(tmp_path / "b", "mlp", test=1.0, tokenizer="p50k", data="easy")
    assert best_by_tokenizer(compare_runs(find_runs([tmp_path]))) == []  # no text has two
    write_run(tmp_path / "c", "rnn", test=1.5, data="easy")
    write_run(tmp_path / "d", "gpt", test=2.5, tokenizer="p50k")
    easy, text = sorted(best_by_tokenizer(compare_runs(find_runs([tmp_path]))))
    assert easy.startswith("Best with each tokenizer on easy, in ")
    assert easy.endswith(": p50k: mlp, 1.000; char: rnn, 1.500.")
    assert text.startswith("Best with each tokenizer on text, in ")
    assert text.endswith(": char: gpt, 2.000; p50k: gpt, 2.500.")


def test_what_a_lossy_tokenizer_loses_is_said(tmp_path: Path) -> None:
    lost = {"characters": 200, "changed": 25, "examples": [["To Be,\n", "to be, "]]}
    write_run(tmp_path / "a", "gpt", test=1.1, lossless=False, tokenizer="bert", lost=lost)
    out = io.StringIO()
    print_comparison(compare_runs(find_runs([tmp_path])), out)
    assert "bert changes 12.5% of the characters: 'To Be,' comes back as 'to be,'" in out.getvalue()


def test_an_equal_budget_in_flops_is_an_equal_comparison(tmp_path: Path) -> None:
    budget = {"train": {"flops": 1e12, "steps": None}}
    write_run(tmp_path / "a", "gpt", test=2.0, steps=100, config=budget)
    write_run(tmp_path / "b", "mlp", test=1.0, steps=300, config=budget)
    assert notes(compare_runs(find_runs([tmp_path]))) == []
    other = {"train": {"flops": 2e12, "steps": None}}
    write_run(tmp_path / "c", "rnn", test=1.0, steps=300, config=other)
    assert "budgets (flops=" in notes(compare_runs(find_runs([tmp_path])))[0]
