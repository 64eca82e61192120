"""A ladder of steps, and runs whose text has no test split: ranked by certified validation."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.referee.verify import verify_run
from harness.report.html.document import write_report
from harness.report.records.runs import find_runs
from harness.report.statistics.ladder import span, steps
from harness.report.statistics.ranking import Comparison, compare_runs
from harness.report.text import ladder
from harness.report.text.terminal import print_comparison
from harness.runs.certificate import read as read_certificate
from harness.runs.summary import read_summary
from tests.report.comparing import Page, write_certificate, write_run
from tests.small_runs import train

NO_TEST = {"sha256": "ab", "split": [0.9, 0.1, 0]}


def without_test(
    folder: Path, model: str, val: float, seed: int = 0, certified: bool = True
) -> Path:
    run = write_run(folder / f"{model}-{seed}", model, seed, test=None, corpus=NO_TEST)
    document = json.loads((run / "summary.json").read_text())
    document["val"] = document["val"] | {"bits_per_byte": val, "nats_per_token": val}
    (run / "summary.json").write_text(json.dumps(document))
    if certified:
        write_certificate(run, document | {"test": document["val"]}, "passed")
    return run


def of_folder(folder: Path) -> Comparison:
    return replace(compare_runs(find_runs([folder])), is_ladder=True)


@pytest.fixture
def nine(tmp_path: Path) -> Path:
    """Steps 1, 2 and 10, with two seeds each but for the first."""
    for seed, scores in ((0, (3.0, 3.25, 2.0)), (1, (None, 3.35, 2.2))):
        for number, score in zip((1, 2, 10), scores, strict=True):
            if score is not None:
                without_test(tmp_path / "all", f"step_{number}", score, seed)
    return tmp_path / "all"


def test_each_step_gains_over_the_one_before(nine: Path) -> None:
    found = steps(of_folder(nine))
    assert [step.group.model for step in found] == ["step_1", "step_2", "step_10"]
    assert found[0].gain is None
    # Means over all seeds of each; the gains of a seed are of those that both steps have.
    assert found[1].gain == pytest.approx(3.0 - 3.3)
    assert found[1].gains == pytest.approx((-0.25,))
    assert found[2].gain == pytest.approx(1.2)
    assert found[2].gains == pytest.approx((1.25, 1.15))
    assert span(found) == pytest.approx((-0.3, 1.25))
    lines = ladder.lines(of_folder(nine))
    assert lines[0] == "step_1: 3.000 validation bits per byte"
    assert lines[1].endswith("gains −0.300")
    assert lines[2].endswith("gains 1.200 (1.150 to 1.250 over 2 seeds)")


def test_the_page_has_gains_curves_and_the_samples_of_all_steps(nine: Path, tmp_path: Path) -> None:
    write_report(of_folder(nine), tmp_path / "a.html", [nine])
    text = (tmp_path / "a.html").read_text()
    found = Page(text)
    steps_alone = text[text.index('<div id="ladder">') : text.index('<div id="curves">')]
    assert Page(steps_alone).unlinked == []
    for section in ("ladder", "curves", "samples"):
        assert section in found.ids
    assert text.count("<rect") >= 2
    assert found.words.count("To be") == 3
    assert "the text has no test split here" in found.words
    write_report(replace(of_folder(nine), is_ladder=False), tmp_path / "b.html", [nine])
    assert "What each step gains" not in (tmp_path / "b.html").read_text()


def test_without_a_certificate_it_is_not_ranked(tmp_path: Path) -> None:
    without_test(tmp_path, "good", 3.0)
    without_test(tmp_path, "peeks", 0.1, certified=False)
    out = io.StringIO()
    print_comparison(of_folder(tmp_path), out)
    assert "good reaches 3.000 validation bits per byte" in out.getvalue()
    assert "not certified, 0.100 bits per byte: no certificate" in out.getvalue()


def test_where_some_have_a_test_score_test_is_shown(tmp_path: Path) -> None:
    write_run(tmp_path / "tested", "gpt", test=2.0)
    without_test(tmp_path, "other", 3.0)
    found = compare_runs(find_runs([tmp_path]))
    assert found.split == "test"
    assert [group.model for group in found.ranked] == ["gpt"]


def test_a_training_without_a_test_split_is_certified_on_validation(tmp_path: Path) -> None:
    assert train(tmp_path, "model=bigram", "train.steps=2", "data.split=[0.95,0.05,0]") == 0
    run = tmp_path / "run"
    found, summary = read_certificate(run), read_summary(run)
    assert found is not None
    assert summary.test is None
    assert found.bound_to.reported == summary.val == summary.final
    assert summary.causal
    assert compare_runs(find_runs([run])).ranked[0].scores == [summary.val.bits_per_byte]
    # Another score in the summary is not the certified one.
    document = json.loads((run / "summary.json").read_text())
    document["val"]["bits_per_byte"] /= 2
    (run / "summary.json").write_text(json.dumps(document))
    assert compare_runs(find_runs([run])).ranked == ()


@pytest.mark.long
def test_verify_certifies_validation_too(tmp_path: Path) -> None:
    assert train(tmp_path, "model=bigram", "train.steps=2", "data.split=[0.95,0.05,0]") == 0
    found = verify_run(tmp_path / "run", complete=True, device="cpu", trust=[])
    assert not found.failed
    found.write(tmp_path / "run")
    assert find_runs([tmp_path / "run"])[0].complete
