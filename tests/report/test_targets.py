"""What a target costs: known crossings are recovered, and what was never reached is censored."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from harness.common.errors import UsageError
from harness.report.drawing.curves import CURVE_AXES
from harness.report.drawing.targets import cost_series
from harness.report.records.runs import find_runs
from harness.report.statistics import targets
from harness.report.statistics.ranking import Comparison, compare_runs
from harness.report.statistics.targets import (
    NATS,
    GroupCost,
    SeedCost,
    Target,
    crossing,
    find_costs,
    read_target,
)
from harness.report.text.targets import cell, evaluations, lines
from tests.conftest import Ended
from tests.report.comparing import Page, write_run
from tests.report.test_floor import counted


def row(step: float, value: float) -> dict[str, float]:
    return {
        "step": step, "tokens": 10 * step, "bytes": 30 * step, "flops": 7 * step,
        "seconds": step / 4, "val/bits_per_byte": value, "val/nats_per_token": 2 * value,
    }  # fmt: skip


def falling(rate: float, every: int = 1, steps: int = 400) -> list[dict[str, float]]:
    """2 + 4 exp(-rate · step) bits per byte."""
    return [row(step, 2 + 4 * math.exp(-rate * step)) for step in range(0, steps + 1, every)]


@pytest.mark.parametrize("rate", [0.01, 0.03, 0.1])
@pytest.mark.parametrize("level", [5.5, 3.0, 2.2])
def test_a_known_crossing_is_recovered(rate: float, level: float) -> None:
    """To a part of the distance of two evaluations, in every currency."""
    truth = math.log(4 / (level - 2)) / rate
    found = crossing(falling(rate, steps=1000), Target(level))
    assert found is not None
    assert found.costs["step"] == pytest.approx(truth, abs=0.1)
    coarse = crossing(falling(rate, every=20, steps=1000), Target(level))
    assert coarse is not None
    assert abs(coarse.costs["step"] - truth) < 20
    for own in (found, coarse):
        step = own.costs["step"]
        expected = {"step": step, "tokens": 10 * step, "bytes": 30 * step, "flops": 7 * step}
        assert own.costs == pytest.approx(expected | {"seconds": step / 4})
        assert not own.censored


def test_between_two_evaluations_it_is_a_line() -> None:
    rows = [row(0, 6), row(100, 3), row(200, 2)]
    for level, step in ((4.5, 50), (3, 100), (2.25, 175), (2, 200)):
        found = crossing(rows, Target(level))
        assert found is not None
        assert found.costs["step"] == pytest.approx(step)
    assert crossing(rows, Target(4.5, NATS)).costs["step"] == pytest.approx(175)  # type: ignore
    assert crossing(rows, Target(1.99)) == SeedCost(targets._costs(rows[-1]), censored=True)
    assert crossing(rows[1:], Target(3.5)) == SeedCost(targets._costs(rows[1]), first=True)
    assert crossing(rows, Target(2.5), interpolated=False) == SeedCost(targets._costs(rows[2]))
    assert crossing([{"step": 1}], Target(2.0)) is None


def test_a_curve_that_rises_again_is_there_the_first_time() -> None:
    rows = [row(0, 4), row(10, 2), row(20, 3), row(30, 1)]
    assert crossing(rows, Target(2.5)).costs["step"] == pytest.approx(7.5)  # type: ignore


# Over seeds


def with_curve(folder: Path, model: str, seed: int, rows: list[dict[str, float]]) -> Path:
    run = write_run(folder / f"{model}-{seed}", model, seed, test=rows[-1]["val/bits_per_byte"])
    write_rows(run, rows)
    return run


def write_rows(run: Path, rows: list[dict[str, float]]) -> None:
    (run / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """gpt takes 100 steps to 3 bits, within 10 %; mlp four times that; bigram gets to 3.5."""
    folder = tmp_path / "runs"
    for seed, factor in enumerate((0.9, 1.0, 1.1)):
        for model, times in (("gpt", 1), ("mlp", 4)):
            rows = [row(times * step, 4 - step / (100 * factor)) for step in (0, 80, 120, 200)]
            with_curve(folder, model, seed, rows)
        with_curve(folder, "bigram", seed, [row(0, 4), row(1000, 3.5 + seed / 100)])
    floor = counted(folder / "floor", 5, 2.5)
    write_rows(floor, [row(0, 6), row(1, 2.5)])
    return folder


def compared(folder: Path) -> Comparison:
    return compare_runs(find_runs([folder]))


def test_means_intervals_and_ratios(runs: Path) -> None:
    found = find_costs(compared(runs), "3")
    floor, gpt, mlp, bigram = found.groups
    assert [own.group.model for own in found.groups] == ["ngram", "gpt", "mlp", "bigram"]
    logs = np.log([90, 100, 110])
    mean = gpt.mean("step")
    assert mean is not None
    assert mean.low is not None
    assert mean.high is not None
    assert math.log(mean.mean) == pytest.approx(logs.mean())
    half = 4.303 * logs.std(ddof=1) / math.sqrt(3)  # Student's t for two degrees of freedom
    assert math.log(mean.high / mean.mean) == pytest.approx(half, rel=0.03)
    assert math.log(mean.mean / mean.low) == pytest.approx(half, rel=0.03)
    assert floor.seeds[0].costs["step"] == 1  # one pass, with nothing between
    assert (gpt.reached, mlp.reached, bigram.reached) == (3, 3, 0)
    assert cell(bigram, "step") == "> 1.00 k"
    to_mlp, to_bigram = found.ratios
    assert to_mlp.times == pytest.approx(4)
    assert to_mlp.is_significant
    assert to_mlp.low is not None
    assert to_mlp.high is not None
    assert to_mlp.low < 4 < to_mlp.high
    assert (to_bigram.bound, to_bigram.high) == (True, math.inf)
    assert to_bigram.times == pytest.approx(1000 / mean.mean)
    assert to_bigram.is_significant
    assert to_bigram.low is not None
    assert math.log(to_bigram.times / to_bigram.low) == pytest.approx(half, rel=0.03)
    assert list(lines(found))[1:] == [
        "bigram never gets there within its 1.00 k steps.",
        f"mlp takes 4.00 times the steps of gpt (95% interval {to_mlp.low:.2f} to "
        f"{to_mlp.high:.2f} for new seeds).",
        f"bigram takes at least {to_bigram.times:.2f} times the steps of gpt (95% interval from "
        f"{to_bigram.low:.2f} on for new seeds).",
    ]


def test_what_happens_between_the_same_evaluations_is_not_told_apart(runs: Path) -> None:
    """A line between them would say that rnn takes twice the steps, and gru 1.1 times, for sure."""
    for seed in range(3):
        with_curve(runs, "rnn", seed, [row(0, 4), row(160, 3.2), row(240, 2.8 + seed / 1e3)])
        with_curve(runs, "gru", seed, [row(0, 4), row(200, 2 + seed / 1e3)])
    found = find_costs(compared(runs), "3")
    own = {each.group.model: each for each in found.groups}
    together = {ratio.other.model: ratio.together for ratio in found.ratios}
    assert together == {"gru": True, "rnn": False, "mlp": False, "bigram": False}
    said = list(lines(found))
    assert (
        "gpt and gru are not told apart: both get there between evaluations that overlap." in said
    )
    shown = {name: evaluations(each) for name, each in own.items()}
    assert shown == {
        "ngram": "1", "gpt": "80 to 120", "gru": "0 to 200", "rnn": "160 to 240",
        "mlp": "320 to 480", "bigram": "after 1.00 k",
    }  # fmt: skip


def test_one_seed_whose_evaluations_overlap_does_not_hide_the_others(tmp_path: Path) -> None:
    """And where the evaluations leave more open than the seeds, the interval is as wide."""
    crossings = {"lstm": (410, 430, 455, 470, 520), "gpt": (515, 610, 640, 660, 700)}
    for model, steps in crossings.items():
        for seed, step in enumerate(steps):
            rows = [row(at, 3 + (step - at) / 1e3) for at in range(0, 801, 50)]
            with_curve(tmp_path, model, seed, rows)
    (ratio,) = find_costs(compared(tmp_path), "3").ratios
    assert (ratio.first.model, ratio.together, ratio.is_significant) == ("lstm", False, True)
    assert ratio.times == pytest.approx(1.365, abs=0.01)
    for seed in range(3):
        rows = [row(0, 4), row(500, 2.9), row(1000, 2 + seed / 1e3)]
        with_curve(tmp_path / "wide", "first", seed, rows)
        rows = [row(0, 4), row(500, 3.01), row(1000, 2 + seed / 1e3)]
        with_curve(tmp_path / "wide", "other", seed, rows)
    (ratio,) = find_costs(compared(tmp_path / "wide"), "3").ratios
    assert ratio.low is not None
    assert ratio.high is not None
    assert (ratio.low, ratio.high) == (pytest.approx(1), pytest.approx(1000))


def test_those_that_never_get_there_are_named_together(runs: Path) -> None:
    with_curve(runs, "rnn", 0, [row(0, 4), row(1000, 3.2)])
    said = list(lines(find_costs(compared(runs), "2.25")))
    assert "None of rnn, bigram gets there within their 1.00 k steps." in said


def test_a_seed_that_never_gets_there_is_censored_and_not_dropped(runs: Path) -> None:
    with_curve(runs, "gpt", 3, [row(0, 4), row(500, 3.2)])
    gpt = next(own for own in find_costs(compared(runs), "3").groups if own.group.model == "gpt")
    assert (gpt.reached, len(gpt.seeds)) == (3, 4)
    mean = gpt.mean("step")
    assert mean is not None
    assert (mean.low, mean.high) == (None, None)
    assert mean.mean == pytest.approx((90 * 100 * 110 * 500) ** 0.25)
    assert cell(gpt, "step").startswith("> ")


def test_targets_by_name(runs: Path) -> None:
    comparison = compared(runs)
    assert read_target("2.25", comparison) == Target(2.25)
    assert read_target("1.5nats", comparison) == Target(1.5, NATS)
    assert read_target("floor", comparison) == Target(2.5, source="ngram")
    gpt = comparison.ranked[0]
    assert read_target("gpt", comparison).level == pytest.approx(np.mean(gpt.scores))
    assert read_target("gpt", comparison).source == "gpt"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.1", "--target 0.1: no run has such a validation score; the lowest is 1."),
        ("gtp", "Did you mean gpt?"),
        ("-1", "give a number"),
        ("nan", "give a number"),
        ("1e3", "give a number"),
    ],
)
def test_a_target_that_none_has_is_one_line(
    runs: Path, command: Callable[..., Ended], text: str, message: str
) -> None:
    ended = command("compare", runs, f"--target={text}")
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err
    assert len(ended.err.splitlines()) == 1


def test_what_runs_have_no_common_target(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "gpt", tokenizer="bytes")
    write_run(tmp_path / "b", "gpt")
    with pytest.raises(UsageError, match=r"several tokenizers \(bytes, char\)"):
        read_target("1nats", compared(tmp_path))
    with pytest.raises(UsageError, match="none of these runs was counted"):
        read_target("floor", compared(tmp_path))
    write_run(tmp_path / "c", "gpt", data="other")
    with pytest.raises(UsageError, match="these runs have other, text"):
        read_target("2", compared(tmp_path))


def test_no_spread_and_no_cost() -> None:
    """Look-ups have no FLOPs; one seed has no interval."""
    for beside, mark in ((0, ""), (3, "*")):  # other jobs on the same machine
        group = SimpleNamespace(beside=beside)
        own = GroupCost(group, (SeedCost(row(100, 3) | {"flops": 0}),))  # type: ignore
        assert cell(own, "flops") == "0"
        assert cell(own, "step") == "100"
        assert cell(own, "seconds") == f"25{mark}"


def test_a_cost_is_no_surer_than_the_evaluations_leave_it() -> None:
    """Five seeds that all cross between step 0 and step 500."""
    costs = [{name: float(step) for name in targets.COSTS} for step in (472, 478, 480, 485, 487)]
    ends = dict.fromkeys(targets.COSTS, 0.0), dict.fromkeys(targets.COSTS, 500.0)
    group = SimpleNamespace(label="a", is_floor=False, beside=0)
    wide = GroupCost(group, tuple(SeedCost(own, between=ends) for own in costs))  # type: ignore
    for currency in ("step", "tokens", "flops"):
        assert cell(wide, currency) == "480 (1 to 500)"
    assert evaluations(wide) == "0 to 500"
    exact = GroupCost(group, tuple(map(SeedCost, costs)))  # type: ignore
    assert cell(exact, "step") == "480 (473 to 488)"
    near = dict.fromkeys(targets.COSTS, 470.0), dict.fromkeys(targets.COSTS, 490.0)
    fine = GroupCost(group, tuple(SeedCost(own, between=near) for own in costs))  # type: ignore
    assert cell(fine, "step") == "480 (470 to 490)"


def test_the_figure_s_curves_are_the_costs(runs: Path) -> None:
    comparison = compared(runs)
    styled = list(enumerate(comparison.ranked))
    series = cost_series(styled, CURVE_AXES[0], "val/bits_per_byte")
    assert {line.label for line in series} == {"gpt", "mlp", "bigram"}  # not the floor
    for line in series:
        group = next(group for group in comparison.ranked if group.label == line.label)
        for level, cost in list(zip(line.x, line.y, strict=True))[::20]:
            (own,) = targets.costs_of([group], Target(level))
            assert own.mean("step").mean == pytest.approx(cost)  # type: ignore


def test_the_page_and_the_terminal_say_it(
    runs: Path, tmp_path: Path, command: Callable[..., Ended]
) -> None:
    out = tmp_path / "page.html"
    ended = command("compare", runs, "--target", "floor", "--out", out)
    assert ended.code == 0
    assert "To 2.500 validation bits per byte, the score of ngram:" in ended.out
    text = out.read_text()
    page = Page(text)
    assert "What the target costs" in page.words
    assert "interpolated linearly" in page.words
    assert "--target floor" in html.unescape(text)
    assert len(page.ids) == len(set(page.ids))
