"""What is ranked, and what is kept apart."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from harness.report.records.runs import find_runs, require_complete
from harness.report.statistics.ranking import compare_runs
from harness.report.text.format import score
from harness.report.text.verdict import headlines, notes
from tests.report.comparing import printed, write_run


def test_ranks_groups_by_mean_test_bits_per_byte(sweep: Path) -> None:
    comparison = compare_runs(find_runs([sweep]))
    assert [group.model for group in comparison.ranked] == ["gpt", "mlp", "table"]
    spread = comparison.ranked[0].score
    assert spread is not None
    # By hand: (2.0 + 2.1 + 2.4) / 3, and the root of 0.086667 / (3 - 1).
    assert (spread.mean, spread.std, spread.n) == pytest.approx((2.166667, 0.208167, 3), abs=1e-6)
    assert score(spread) == "2.167 ± 0.208"
    ranking = printed(sweep).split("Not ranked")[0]
    places = [re.split(r"\s+", line.strip())[:3] for line in ranking.splitlines()]
    assert [place for place in places if place[0].isdigit()] == [
        ["1", "gpt", "3"], ["2", "mlp", "3"], ["3", "table", "3"],
    ]  # fmt: skip
    assert "2.167 ± 0.208" in ranking
    assert "1.53 M" in ranking


def test_groups_differ_in_configuration_not_in_seed_or_place(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path / f"a{seed}", "gpt", seed, config={"optimizer": {"lr": 0.1}})
    write_run(tmp_path / "b", "gpt", 0, config={"optimizer": {"lr": 0.2}}, test=2.5)
    ranked = compare_runs(find_runs([tmp_path])).ranked
    assert [(len(group.counted), group.variant) for group in ranked] == [
        (2, "lr=0.1"), (1, "lr=0.2"),
    ]  # fmt: skip


def test_a_repeated_seed_is_no_second_seed(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "gpt", 0, test=2.0)
    write_run(tmp_path / "b", "gpt", 0, test=3.0)
    comparison = compare_runs(find_runs([tmp_path]))
    assert len(comparison.ranked[0].counted) == 1
    assert "repeats seed 0 of a" in comparison.uncounted[0][1]


def test_lossy_runs_are_apart_and_unranked(sweep: Path) -> None:
    comparison = compare_runs(find_runs([sweep]))
    assert [group.tokenizer for group in comparison.lossy] == ["bert"]
    ranking, rest = printed(sweep).split("Not ranked")
    assert "bert" not in ranking
    assert "no bits per byte: the tokenizer is lossy" in rest
    assert "nats/token" in rest
    assert re.search(r"gpt +bert +1 +1\.100", rest)


def test_what_did_not_finish_is_listed_with_its_reason_and_never_ranked(sweep: Path) -> None:
    comparison = compare_runs(find_runs([sweep]))
    assert {run.folder.name for group in comparison.groups for run in group.counted}.isdisjoint(
        {"failed", "nan", "stopped", "running", "damaged"}
    )
    listed = printed(sweep).split("Not counted")[1]
    for name, status, reason in (
        ("failed", "failed", "boom <script>alert(1)</script> second line"),
        ("nan", "non_finite", "no error recorded, at step 100"),
        ("stopped", "stopped", "stopped before its end, at step 100"),
        ("running", "running", "still running, or killed, at step 50"),
        ("damaged", "damaged", "summary.json is not strict JSON"),
    ):
        assert re.search(rf"^ ?{name} +{status} +{re.escape(reason)} *$", listed, re.MULTILINE)
    # gpt's failed, non-finite and stopped seeds share its configuration; the rest is unreadable.
    assert "gpt · char: 3 of 6 seeds have a score; the mean is over those alone." in notes(
        comparison
    )


def test_leaking_and_non_causal_runs_are_not_ranked(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "gpt", test=2.0)
    write_run(tmp_path / "b", "mlp", test=1.0, leaks=True)
    write_run(tmp_path / "c", "wavenet", test=0.5, causal=False)
    comparison = compare_runs(find_runs([tmp_path]))
    assert [group.model for group in comparison.ranked] == ["gpt"]
    assert [reason.split(":")[0] for _, reason in comparison.uncounted] == ["leaks", "not causal"]


def test_what_is_not_certified_is_apart_with_the_reason(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "gpt", test=2.0)
    write_run(tmp_path / "b", "peek", test=0.003, certified="failed")
    write_run(tmp_path / "c", "old", test=1.0, certified="")
    strange = write_run(tmp_path / "d", "strange", test=0.5, corpus={"sha256": "aa"})
    summary = strange / "summary.json"
    summary.write_text(summary.read_text().replace('"aa"', '"bb"'))
    comparison = compare_runs(find_runs([tmp_path]))
    assert [group.model for group in comparison.ranked] == ["gpt"]
    listed = printed(tmp_path).split("Not counted")[1]
    for reason in (
        "not certified, 0.003 bits per byte: failed sequential: as fixed by hand",
        "not certified, 1.000 bits per byte: no certificate; python -m harness.verify",
        "not certified, 0.500 bits per byte: its certificate is for another text or split",
    ):
        assert reason in listed


def test_a_sample_is_not_enough_where_all_is_asked_for(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "gpt", test=2.0)
    (record,) = find_runs([tmp_path])
    assert not compare_runs([require_complete(record)]).ranked
    complete = replace(record, complete=True)
    assert compare_runs([require_complete(complete)]).ranked


def test_different_texts_under_one_name_are_ranked_apart(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "gpt", test=2.0, corpus={"sha256": "aaaaaaaa"})
    write_run(tmp_path / "b", "mlp", test=1.0, corpus={"sha256": "bbbbbbbb"})
    comparison = compare_runs(find_runs([tmp_path]))
    assert [group.data for group in comparison.ranked] == ["text·aaaaaa", "text·bbbbbb"]
    assert any("data sets" in note for note in notes(comparison))


def test_what_is_only_watched_does_not_split_a_group(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "gpt", 0, test=2.0, config={"checkpoint": {"every": 500}})
    write_run(tmp_path / "b", "gpt", 1, test=1.0, config={"checkpoint": {"every": 100}})
    assert len(compare_runs(find_runs([tmp_path])).ranked) == 1


def test_other_data_has_a_ranking_of_its_own(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "gpt", test=2.0)
    write_run(tmp_path / "b", "mlp", test=1.0, data="other")
    first, second = map(str, headlines(compare_runs(find_runs([tmp_path]))))
    assert first.startswith("mlp · other reaches 1.000")
    assert second.startswith("gpt · text reaches 2.000")
