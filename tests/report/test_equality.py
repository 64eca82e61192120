"""Under every table: what is equal, by how much the rest differs, what each model sees, and what
the seeds can find."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from harness.report.records.runs import find_runs
from harness.report.statistics.power import plan
from harness.report.statistics.ranking import compare_runs
from harness.report.text import export, verdict
from tests.report.comparing import page, printed, write_run


def test_what_is_equal_and_how_many_fold_the_rest_differs(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    write_run(runs / "gpt", "gpt", parameters={"total": 3000}, flops_per_token=900.0)
    write_run(runs / "mlp", "mlp", parameters={"total": 1500}, flops_per_token=300.0, steps=100)
    write_run(runs / "table", "table", parameters={"total": 1500}, flops_per_token=0.0)
    counted = {"total": 0, "state": 9}
    write_run(runs / "ngram", "ngram", parameters=counted, steps=1, flops_per_token=0.0)
    line = (
        "Equal: steps, training tokens, bytes of text, seconds. Not equal: parameters (1,500 to "
        "3,000, 2-fold), FLOPs (1.92 M to 5.76 M, 3-fold; 0 for look-ups)."
    )
    comparison = compare_runs(find_runs([runs]))
    assert verdict.equality_lines(comparison) == [line]
    for text in (printed(runs), export.markdown(comparison), page(runs, tmp_path / "a.html")):
        assert line in text


def test_where_all_but_a_table_are_equal_nothing_is_one_fold(tmp_path: Path) -> None:
    for name, flops in (("gpt", 300.0), ("mlp", 300.0), ("table", 0.0)):
        write_run(tmp_path / name, name, flops_per_token=flops)
    (line,) = verdict.equality_lines(compare_runs(find_runs([tmp_path])))
    assert line.endswith(" Not equal: FLOPs (1.92 M; 0 for look-ups).")


def test_every_table_says_what_a_model_sees(tmp_path: Path) -> None:
    for name, field in (("gpt", 64), ("gru", None)):
        for seed in (0, 1):
            write_run(tmp_path / f"{name}{seed}", name, seed, receptive_field=field)
    write_run(tmp_path / "old", "old")
    found = {run.model: run.sees for run in find_runs([tmp_path])}
    assert found == {"gpt": 64, "gru": math.inf, "old": None}
    text = printed(tmp_path)
    assert "sees" in text
    assert "all before" in text


def test_the_plan_has_the_pooled_spread_of_the_runs(tmp_path: Path) -> None:
    """Variances 0.02 and 0.005 with one degree of freedom each, and 0 with two."""
    for model, scores in (("a", (2.0, 2.2)), ("b", (2.5, 2.6)), ("c", (2.7, 2.7, 2.7))):
        for seed, score in enumerate(scores):
            write_run(tmp_path / f"{model}{seed}", model, seed, test=score)
    (line,) = verdict.plan_lines(compare_runs(find_runs([tmp_path])))
    assert line == plan(2, math.sqrt((0.02 + 0.005) / 4), 3, "as here")
    assert line in printed(tmp_path)


@pytest.mark.parametrize("models", [("gpt",), ("gpt", "mlp")])
def test_without_two_models_and_a_spread_there_is_no_plan(
    tmp_path: Path, models: tuple[str, ...]
) -> None:
    for model in models:
        write_run(tmp_path / model, model)
    assert verdict.plan_lines(compare_runs(find_runs([tmp_path]))) == []


def test_runs_of_other_shards_are_no_seeds_of_one_configuration(tmp_path: Path) -> None:
    """Their corpora are equal: the beginning of the stream."""
    read = dict.fromkeys(
        ("shards", "bytes", "passes", "documents", "held_out", "empty", "unknown", "replaced"), 1
    )
    for seed, shards in enumerate("ab"):
        write_run(tmp_path / shards, "gpt", seed, stream=read | {"sha256": shards * 64})
    ranked = compare_runs(find_runs([tmp_path])).ranked
    assert sorted(group.variant for group in ranked) == ["shards=aaaaaaaa", "shards=bbbbbbbb"]
