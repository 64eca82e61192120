"""`harness.compare --where`, on real runs: what it prints, keeps, and refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.report.html.document import Asked, write_report
from harness.report.records.runs import find_runs
from harness.report.statistics.ranking import compare_runs
from harness.report.statistics.where import Where
from harness.report.where import find_where
from harness.runs.test_reads import FILE as READS
from harness.runs.token_nats import FILES
from tests.conftest import Ended
from tests.report.comparing import Page
from tests.small_runs import train

SPLIT = "data.split=[0.5,0.4,0.1]"  # 12 kB of validation: 47 blocks


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A counted model, and two seeds of a bigram."""
    folder = tmp_path_factory.mktemp("where")
    for name, words in {
        "ngram": ["model=ngram"],
        "bigram-0": ["model=bigram"],
        "bigram-1": ["model=bigram", "seed=1"],
    }.items():
        assert train(folder / name, *words, SPLIT, "train.steps=2") == 0
    return folder


@pytest.fixture
def runs(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "runs", ignore=shutil.ignore_patterns("cache"))


def found(folder: Path) -> Where:
    return find_where(compare_runs(find_runs([folder])), "val", [])


def test_it_scores_once_and_says_so(runs: Path, command: Callable[..., Ended]) -> None:
    out = runs / "page.html"
    first = command("compare", runs, "--where", "--out", out)
    assert (first.code, first.err.count("scoring them once")) == (0, 3)
    assert "By kind of token: " in first.out
    assert "how unsure the floor is" in first.out
    for path in runs.glob("*/run/checkpoints/*"):
        if "ngram" not in str(path):  # whose certainty is computed anew
            path.unlink()
    again = command("compare", runs, "--where")
    assert (again.code, again.err) == (0, "")
    assert again.out.splitlines() == first.out.splitlines()[:-1]  # but for the page

    words = Page(out.read_text()).words
    assert "Where the differences come from" in words
    assert "An ordinary passage" in words
    assert "Loss over the length of the context" in words


def test_the_whole_difference_is_that_of_the_validation_scores(runs: Path) -> None:
    where = found(runs)
    for pair in where.pairs:
        first, second = (
            np.mean([run.val.bits_per_byte for run in group.counted if run.val])  # type: ignore
            for group in (pair.first, pair.second)
        )
        assert pair.found.total == pytest.approx(second - first, rel=1e-5)
        for division in pair.found.divisions:
            parts = sum(part.difference for part in division.parts)
            assert parts == pytest.approx(pair.found.total, rel=1e-12)
    for group, curve in where.curves:
        assert curve.full == pytest.approx(
            np.mean([run.val.bits_per_byte for run in group.counted if run.val])  # type: ignore
        )
        if group.model == "bigram":
            assert curve.bits == pytest.approx([curve.full] * len(curve.bits), abs=1e-6)
        if group.model == "ngram":
            assert curve.gains_until <= 8  # it sees six tokens
    assert [pair.found.seeds for pair in where.pairs] == [(1, 2)]


@pytest.mark.long
def test_losses_that_do_not_fit_are_made_anew(runs: Path, command: Callable[..., Ended]) -> None:
    one, other = runs / "ngram" / "run", runs / "bigram-0" / "run"
    expected = found(runs)
    kept = (one / FILES["val"]).read_bytes()
    (one / FILES["val"]).write_bytes((other / FILES["val"]).read_bytes())
    (other / FILES["val"]).write_bytes(kept[:-4])
    third = runs / "bigram-1" / "run" / FILES["val"]  # the same sum, of other tokens
    third.write_bytes(third.read_bytes()[:64] + third.read_bytes()[:63:-1])
    again = command("compare", runs, "--where")
    assert again.err.count("scoring them once") == 3
    assert (one / FILES["val"]).read_bytes() == kept
    assert found(runs).pairs[0].found.divisions == expected.pairs[0].found.divisions


@pytest.mark.long
def test_test_is_read_where_it_is_asked_for(runs: Path, command: Callable[..., Ended]) -> None:
    for name in ("bigram-1", "bigram-0"):
        summary = runs / name / "run" / "summary.json"
        summary.write_text(json.dumps(json.loads(summary.read_text()) | {"candidate": True}))
    assert command("compare", runs, "--where").code == 0
    assert not [*runs.glob(f"*/run/{READS}"), *runs.glob(f"*/run/{FILES['test']}")]
    ended = command("compare", runs, "--where", "--split", "test")
    assert "test bits per byte ahead of" in ended.out
    assert len([*runs.glob(f"*/run/{READS}")]) == len([*runs.glob(f"*/run/{FILES['test']}")]) == 3


def refused(command: Callable[..., Ended], *arguments: object) -> str:
    ended = command("compare", *arguments, "--where")
    assert (ended.code, ended.out) == (2, "")
    *said, last = ended.err.splitlines()
    assert all("scoring them once" in line for line in said)
    return last


@pytest.mark.long
def test_what_can_not_be_compared_is_one_line(
    runs: Path, command: Callable[..., Ended], tmp_path: Path
) -> None:
    assert "at least two models are compared, and 1 of these" in refused(command, runs / "ngram")
    assert train(tmp_path / "bytes", "model=bigram", "tokenizer=bytes", SPLIT) == 0
    line = refused(command, runs, tmp_path / "bytes")
    assert "these have several tokenizers: bytes, char" in line
    split = "data.split=[0.6,0.3,0.1]"
    assert train(tmp_path / "other", "model=mlp", "model.n_hidden=4", split) == 0
    assert "split the text differently" in refused(command, runs, tmp_path / "other")
    shutil.rmtree(tmp_path / "other")
    for path in (runs / "bigram-1" / "run" / "checkpoints").iterdir():
        path.unlink()
    assert "has no checkpoint yet" in refused(command, runs)


@pytest.mark.long
def test_weights_that_score_otherwise_are_refused(
    runs: Path, command: Callable[..., Ended]
) -> None:
    summary = runs / "bigram-0" / "run" / "summary.json"
    content = json.loads(summary.read_text())
    content["val"]["nats_per_token"] *= 1.01
    summary.write_text(json.dumps(content))
    assert "and its summary says" in refused(command, runs)


@pytest.mark.long
def test_the_text_of_a_run_is_escaped(runs: Path, tmp_path: Path) -> None:
    comparison = compare_runs(find_runs([runs]))
    where = find_where(comparison, "val", [])
    evil = "<script>alert(1)</script>"
    pair = where.pairs[0]
    piece = replace(pair.contrasts[0].pieces[0], text=evil, bits=9.0)
    contrast = replace(pair.contrasts[0], lead=evil, pieces=(piece,))
    write_report(
        comparison, tmp_path / "x.html", [runs],
        Asked(replace(where, pairs=(replace(pair, contrasts=(contrast,)),))),
    )  # fmt: skip
    page = Page((tmp_path / "x.html").read_text())
    assert page.scripts == 1
    assert page.words.count(evil) == 2
