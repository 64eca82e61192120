"""Which two models are called different, and in what words."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.common.text import markdown
from harness.report.html.document import write_report
from harness.report.records.runs import find_runs, read_run
from harness.report.statistics.differences import Pair, adjacent_pairs
from harness.report.statistics.ranking import Comparison, compare_runs
from harness.report.text.pairs import caveats, evidence, forest_axis, sentence
from harness.report.text.verdict import headlines
from tests import small_runs as training
from tests.conftest import Ended
from tests.report.comparing import write_certificate, write_run

BYTES = 40 * 256
HARD = np.random.default_rng(0).uniform(0.5, 1.5, 40)  # what all models find hard


def write(
    folder: Path, model: str, seed: int, test: float, noise: float = 0.002, **more: Any
) -> Path:
    """A run whose blocks have the text's shape and a little of their own."""
    own = np.random.default_rng([seed, len(model)]).normal(0, noise, 40)
    shape = (HARD * (1 + own)).tolist()
    path = folder / f"{model}-{seed}"
    return write_run(path, model, seed, test=test, blocks=shape, test_bytes=BYTES, **more)


def compared(folder: Path) -> Comparison:
    return compare_runs(find_runs([folder]))


def test_a_difference_beyond_text_and_seeds_is_called_one(tmp_path: Path) -> None:
    for seed, (gpt, rnn) in enumerate([(2.00, 2.10), (2.01, 2.112), (2.02, 2.118)]):
        write(tmp_path, "gpt", seed, gpt)
        write(tmp_path, "rnn", seed, rnn)
    (pair,) = compared(tmp_path).pairs
    assert (pair.better.model, pair.worse.model) == ("gpt", "rnn")
    assert pair.interval is not None
    assert pair.interval.mean == pytest.approx(0.1, abs=1e-9)
    assert pair.is_significant
    assert sentence(pair) == (
        f"gpt is 0.100 bits per byte better than rnn (95% interval {pair.interval.low:.3f} to "
        f"{pair.interval.high:.3f})."
    )
    assert caveats([pair]) == [
        "Intervals are for text like these 10,240 test bytes and for new seeds (3 and 3, by "
        "Welch's t)."
    ]
    (line,) = headlines(compared(tmp_path))
    assert line.evidence.startswith("Tested in pairs: 95% interval ")


def test_seeds_that_disagree_settle_nothing(tmp_path: Path) -> None:
    """Though each run's text is scored almost alike: the mutant that forgets the seeds fails."""
    for seed, (gpt, rnn) in enumerate([(2.00, 2.10), (2.01, 2.00), (2.02, 2.10)]):
        write(tmp_path, "gpt", seed, gpt)
        write(tmp_path, "rnn", seed, rnn)
    (pair,) = compared(tmp_path).pairs
    assert not pair.is_significant
    assert sentence(pair).startswith("gpt is not shown to be better than rnn: 0.057 bits per byte")
    (line,) = headlines(compared(tmp_path))
    assert line.evidence.startswith("This order is not settled: tested in pairs, 95% interval −")


def test_one_seed_speaks_of_the_text_alone(tmp_path: Path) -> None:
    write(tmp_path, "gpt", 7, 2.0)
    write(tmp_path, "rnn", 7, 2.1)
    (pair,) = compared(tmp_path).pairs
    assert pair.is_significant
    words = sentence(pair)
    assert words.startswith("As trained here, gpt is 0.100 bits per byte better than rnn (95%")
    assert "one seed" not in words  # which is said once, for all pairs
    assert caveats([pair, pair]) == [
        "Intervals are for text like these 10,240 test bytes.",
        "One seed says nothing of the chance in training.",
    ]
    assert "one seed says nothing" in evidence(pair)


def test_every_seed_counts_and_none_is_paired(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        write(tmp_path, "gpt", seed, 2.0 + seed / 100)
    for seed in (2, 3):
        write(tmp_path, "rnn", seed, 2.3 + seed / 100)
    (pair,) = compared(tmp_path).pairs
    assert pair.seeds == (3, 2)
    assert pair.interval is not None
    assert pair.interval.mean == pytest.approx(2.325 - 2.01)
    assert "for new seeds (3 and 2, by Welch's t)" in evidence(pair)


def test_the_forest_s_axis_is_made_for_the_close_pairs(tmp_path: Path) -> None:
    for model, test in (("a", 2.0), ("b", 2.01), ("c", 2.03), ("far", 9.0)):
        write(tmp_path, model, 0, test)
    pairs = compared(tmp_path).pairs
    low, high = forest_axis(pairs)
    assert low <= 0 < high < 0.2
    close = [pair.interval for pair in pairs if pair.worse.model != "far"]
    assert all(each is not None and low <= each.mean <= high for each in close)
    write_report(compared(tmp_path), tmp_path / "a.html", [tmp_path])
    text = (tmp_path / "a.html").read_text()
    table = text[text.index("Differences between pairs") :]
    assert table.count("M133 3.5l6") == 3  # an arrow for each of those that lie beyond
    assert 'text-anchor="middle">0</text>' in table
    headings = re.findall(r"<button[^>]*>([^<]*)", table)
    assert headings[:4] == ["first", "second", "is the first better?", "difference"]


def test_neighbours_of_the_ranking(tmp_path: Path) -> None:
    for model, test in (("gpt", 2.0), ("rnn", 1.9), ("mlp", 2.2)):
        write(tmp_path, model, 0, test)
    comparison = compared(tmp_path)
    neighbours = adjacent_pairs(comparison.pairs, comparison.ranked)
    names = [(pair.better.model, pair.worse.model) for pair in neighbours]
    assert names == [("rnn", "gpt"), ("gpt", "mlp")]


def test_many_pairs_need_more_evidence(tmp_path: Path) -> None:
    """The interval of a pair by itself leaves out 0; among 15 pairs that is no evidence."""
    for seed, difference in enumerate((0.05, 0.10, 0.15)):
        write(tmp_path / "two", "gpt", seed, 2.0)
        write(tmp_path / "two", "rnn", seed, 2.13 + difference)
    (alone,) = compared(tmp_path / "two").pairs
    assert alone.is_significant
    for number, seed in ((number, seed) for number in range(4) for seed in range(3)):
        write(tmp_path / "two", f"m{number}", seed, 4.0 + 0.3 * (number + seed) % 1)
    pairs = compared(tmp_path / "two").pairs
    assert len(pairs) == 15
    (same,) = [pair for pair in pairs if {pair.better.model, pair.worse.model} == {"gpt", "rnn"}]
    assert same.interval == alone.interval
    assert not same.is_significant
    assert f"p {same.p:.2g} after Holm's correction for 15 pairs" in sentence(same)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (None, "a run has no test_nats.json: it was trained by an older version"),
        ({"corpus": "cd"}, "scored on different test bytes"),
        ({"start": 5}, "scored on different test bytes"),
    ],
)
def test_what_can_not_be_paired_is_said(
    tmp_path: Path, change: dict[str, Any] | None, reason: str
) -> None:
    write(tmp_path, "gpt", 0, 2.0)
    path = write(tmp_path, "rnn", 0, 2.1) / "test_nats.json"
    if change is None:
        path.unlink()
    else:
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    comparison = compared(tmp_path)
    (pair,) = comparison.pairs
    assert sentence(pair) == f"gpt and rnn were not tested in pairs: {reason}."
    assert "One seed: no spread known." in headlines(comparison)[0].evidence


def test_short_texts_are_not_tested(tmp_path: Path) -> None:
    for model in ("gpt", "rnn"):
        path = tmp_path / "short" / model
        write_run(path, model, test=2.0, blocks=[1.0] * 4, test_bytes=1000)
    (pair,) = compared(tmp_path / "short").pairs
    assert "a test text of 1,000 bytes is too short: 32 blocks of 256 bytes" in sentence(pair)


def test_other_data_is_no_partner(tmp_path: Path) -> None:
    write(tmp_path, "gpt", 0, 2.0)
    write(tmp_path, "rnn", 0, 2.1, data="other")
    assert compared(tmp_path).pairs == ()


def test_tokenizers_are_paired_by_bytes_whatever_their_first_token(tmp_path: Path) -> None:
    """A first token of 200 bytes is not paid for; the difference is still that of the scores."""
    write(tmp_path, "gpt", 0, 2.0)
    path = write(tmp_path, "rnn", 0, 2.0, tokenizer="bpe")
    summary = json.loads((path / "summary.json").read_text())
    summary["test"]["bytes"] -= 200
    summary["test"]["bits_per_byte"] *= BYTES / (BYTES - 200)
    (path / "summary.json").write_text(json.dumps(summary))
    write_certificate(path, summary, "passed")
    (pair,) = compared(tmp_path).pairs
    assert pair.interval is not None
    assert pair.interval.mean == pytest.approx(2 * 200 / (BYTES - 200))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"nats": [1.0] * 40}, "does not add up to the test score"),
        ({"nats": [1.0]}, "1 blocks do not cover 10240 bytes"),
        ({"nats": [math.nan] * 40}, "is not strict JSON"),
        ({"bytes": 9000}, "blocks do not cover"),
    ],
)
def test_damaged_blocks_are_damage(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    path = write(tmp_path, "gpt", 0, 2.0) / "test_nats.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    run = read_run(tmp_path / "gpt-0")
    assert run.status == "damaged"
    assert reason in (run.error or "")


def test_the_words_are_printed_and_written(tmp_path: Path, command: Callable[..., Ended]) -> None:
    for seed in (0, 1):
        write(tmp_path / "runs", "gpt", seed, 2.0)
        write(tmp_path / "runs", "rnn", seed, 2.1)
    printed = command("compare", tmp_path / "runs", "--markdown", tmp_path / "t.md")
    (pair,) = compared(tmp_path / "runs").pairs
    assert sentence(pair) in printed.out.splitlines()
    assert f"- {markdown(sentence(pair))}" in (tmp_path / "t.md").read_text().splitlines()


def test_a_pair_without_an_interval_is_never_settled(tmp_path: Path) -> None:
    write(tmp_path, "gpt", 0, 2.0)
    (group,) = compared(tmp_path).ranked
    assert not Pair(group, group, untested="no reason").is_significant


def test_real_runs_are_paired_across_tokenizers(tmp_path: Path) -> None:
    """What training leaves is what the comparison reads: characters against bytes."""
    (tmp_path / "corpus.txt").write_text(training.TEXT * 12)
    for tokenizer in ("char", "bytes"):
        more = (f"tokenizer={tokenizer}", "optimizer.lr=0.1", "train.steps=2")
        assert training.train(tmp_path / tokenizer, "model=bigram", *more) == 0
    (pair,) = compared(tmp_path).pairs
    assert pair.untested is None
    assert pair.interval is not None
    better, worse = (
        training.summary(tmp_path / group.tokenizer)["test"]["bits_per_byte"]
        for group in (pair.better, pair.worse)
    )
    assert pair.interval.mean == pytest.approx(worse - better, rel=1e-4)
