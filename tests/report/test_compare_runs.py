"""Reading run folders: what is found, and what is damage."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.common.errors import UsageError
from harness.report.records.runs import find_runs, read_run
from harness.report.statistics.ranking import compare_runs
from harness.runs import metrics
from tests.report.comparing import page, write_run

HUGE = 10**400
LOST = '{"status": "finished", "lost": {"characters": 9, "changed": 1, "examples": 3}}'


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("summary.json", "[1]", "summary.json is not a JSON object"),
        ("summary.json", '{"status": "done"}', "no known status"),
        (
            "summary.json",
            '{"status": "finished", "train": 3}',
            "summary.json: train: Input",
        ),
        ("summary.json", '{"status": "finished", "test": {"bits_per_byte": NaN}}', "strict JSON"),
        ("summary.json", '{"status": "finished", "flops_per_token": "1"}', "flops_per_token"),
        ("metrics.jsonl", '{"step": 0}\n{"st\n{"step": 2}\n', "metrics.jsonl line 2"),
        ("metrics.jsonl", '{"loss": 0}\n', "metrics.jsonl line 1 is not a row"),
        # Integers that no float holds, and more digits than Python reads
        ("summary.json", f'{{"status": "finished", "parameters": {{"total": {HUGE}}}}}', "total"),
        ("test_nats.json", f'{{"nats": [{HUGE}], "start": 0, "bytes": 9}}', "test_nats.json"),
        ("summary.json", '{"status": "finished", "seed": ' + "9" * 5000 + "}", "strict JSON"),
        ("summary.json", '{"status": "finished", "lost": {"characters": "x"}}', "characters"),
        ("summary.json", LOST, "summary.json: lost.examples: Input should be a valid list"),
        ("config.yaml", "foo: [{1: a, b: c}]", "a setting that no run writes"),
        ("config.yaml", "a: [", "config.yaml is not plain YAML"),
        ("config.yaml", None, "config.yaml is missing"),
        ("summary.json", None, "summary.json is missing"),
    ],
)
def test_damage_is_named_and_not_ranked(
    tmp_path: Path, file: str, content: str | None, reason: str
) -> None:
    folder = write_run(tmp_path / "run", "gpt")
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(content)
    comparison = compare_runs(find_runs([tmp_path]))
    assert comparison.groups == ()
    ((run, why),) = comparison.uncounted
    assert run.status == "damaged"
    assert reason in why
    assert reason.split()[0] in page(tmp_path, tmp_path / "report.html")


def test_a_torn_last_line_costs_that_line_alone(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", "gpt")
    path = folder / metrics.FILE
    path.write_text(path.read_text()[:-20])
    run = read_run(folder)
    steps = [row["step"] for row in run.metrics.evaluations]
    assert (run.status, steps, run.metrics.last_step) == ("finished", [0, 50], 50)


def test_a_loss_that_no_float_holds_is_no_number(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", "gpt")
    before = read_run(folder).metrics.losses
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(f'{{"step": 101, "train/loss": {HUGE}}}\n')
    run = read_run(folder)
    assert (run.status, run.metrics.last_step) == ("finished", 101)
    assert run.metrics.losses.tolist() == before.tolist()


def test_a_heading_of_a_thousand_digits_is_text(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", "gpt")
    (folder / "samples.txt").write_text(f"=== step 7 ===\na\n\n=== step {'9' * 5000} ===\nb\n")
    run = read_run(folder)
    assert run.sample is not None
    assert (run.status, run.sample.step) == ("finished", 7)


def test_whatever_else_a_file_holds_is_damage_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One folder must not keep all others from being compared."""

    def surprised(path: Path) -> None:
        raise OverflowError("of a kind that nobody thought of")

    folder = write_run(tmp_path / "run", "gpt")
    monkeypatch.setattr(metrics, "read", surprised)
    run = read_run(folder)
    assert run.status == "damaged"
    assert run.error is not None
    assert "nobody thought of" in run.error


def test_a_backslash_in_a_name_is_a_backslash(tmp_path: Path) -> None:
    for number, init in enumerate((r"a\qb", r"a\g<0>b")):
        write_run(tmp_path / f"run{number}", "gpt", config={"init": init})
    found = page(tmp_path, tmp_path / "report.html")
    assert r"a\qb" in found
    assert r"a\g&lt;0&gt;b" in found


def test_a_path_without_runs_is_named(tmp_path: Path) -> None:
    empty = tmp_path / "nothing"
    with pytest.raises(UsageError, match=r"nothing: no such folder"):
        find_runs([empty])
    empty.mkdir()
    with pytest.raises(UsageError, match=r"nothing: no run here"):
        find_runs([empty])


def test_runs_are_found_once_at_any_depth(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a" / "b" / "run", "gpt")
    around = tmp_path / "a" / ".." / "a"
    assert [record.folder for record in find_runs([run, around])] == [run]
