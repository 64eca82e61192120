"""Values of a sweep that go together: the first of one setting with the first of the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hypothesis import given, settings

from harness.config.settings import Settings
from harness.config.together import apart, joined
from harness.training import sweep as sweeps
from tests.conftest import Ended


@pytest.fixture
def jobs(
    command: Callable[..., Ended], small_text: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[Settings]]:
    """The jobs that a sweep would train."""
    begin, found = sweeps.begin_sweep, []

    def beginning(*arguments: Any) -> Any:
        found.append(begin(*arguments).jobs)
        raise SystemExit(0)

    monkeypatch.setattr(sweeps, "begin_sweep", beginning)

    def planned(*words: str) -> list[Settings]:
        text = ("data=text", f"data.path={small_text}", "device=cpu", "train.seq_len=8")
        ended = command("train", *words, *text)
        assert ended.code == 0, ended.err
        return found.pop()

    return planned


def points(jobs: list[Settings]) -> list[tuple[Any, ...]]:
    return [(job.names.model, job.optimizer["lr"], job.seed) for job in jobs]


def test_they_go_together_and_the_others_are_combined(jobs: Callable[..., list[Settings]]) -> None:
    """In the order of the command line; a group of files, a number, and what is made by a
    function."""
    found = jobs(
        "-m", "model=bigram,mlp", "seed=0,1", "optimizer.lr=1e-2,1e-3",
        "sweep.together=[optimizer.lr,model]",
    )  # fmt: skip
    bigram, mlp = ("bigram", 1e-2), ("mlp", 1e-3)
    assert points(found) == [(*bigram, 0), (*bigram, 1), (*mlp, 0), (*mlp, 1)]
    found = jobs("-m", "seed=range(3)", "model=bigram", "sweep.together=[seed,init]",
                 "++init=choice(default,xavier,gpt2)")  # fmt: skip
    assert [(job.seed, job.init) for job in found] == [(0, "default"), (1, "xavier"), (2, "gpt2")]


def test_a_recipe_may_put_values_together(
    jobs: Callable[..., list[Settings]], tmp_path: Path
) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\n"
        "hydra:\n  mode: MULTIRUN\n"
        "  sweeper: {params: {model: 'bigram,mlp', optimizer.lr: '1e-2,1e-3'}}\n"
        "sweep: {together: [model, optimizer.lr]}\n"
    )
    found = jobs("experiment=mine", "seed=0,1", f"hydra.searchpath=[{tmp_path}]")
    assert {point[:2] for point in points(found)} == {("bigram", 1e-2), ("mlp", 1e-3)}
    assert len(found) == 4


def test_a_recipe_that_puts_it_elsewhere_is_refused(
    command: Callable[..., Ended], tmp_path: Path
) -> None:
    """Where it would say nothing."""
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\n"
        "hydra: {sweeper: {params: {model: 'bigram,mlp', sweep.together: '[model]'}}}\n"
    )
    ended = command("train", "-m", "experiment=mine", f"hydra.searchpath=[{tmp_path}]")
    assert ended.code == 2
    words = "hydra.sweeper.params.sweep.together: in a file it stands under `sweep:`"
    assert ended.err == f"error: {words}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["model=bigram,mlp", "seed=0,1,2", "sweep.together=[model,seed]"],
            "sweep.together needs as many values of each setting: model has 2, seed has 3",
        ),
        (
            ["model=bigram,mlp", "seed=0,1", "sweep.together=[model,sede]"],
            "sweep.together: this sweep gives sede no values. Did you mean seed?",
        ),
        (["model=bigram,mlp", "sweep.together=model"], "sweep.together=model should be"),
        (
            ["model=bigram,mlp", "sweep.together=model,seed"],
            "sweep.together=model,seed should be a list: sweep.together=[…,…]",
        ),
        (["model=bigram", "sweep.joined=x"], "there is no setting sweep.joined"),
        (["model=bigram", "sweep.togther=[model]"], "Did you mean sweep.together?"),
    ],
)
def test_a_mistake_is_one_line(
    command: Callable[..., Ended], words: list[str], message: str, small_text: Path, tmp_path: Path
) -> None:
    ended = command("train", "-m", *words, "data=text", f"data.path={small_text}")
    assert ended.code == 2
    assert message in ended.err
    assert len(ended.err.splitlines()) == 1
    assert list((tmp_path / "here").iterdir()) == []


def test_help_shows_it(command: Callable[..., Ended]) -> None:
    words = " ".join(command("train", "--help").out.split())
    assert "sweep.together=[] Settings whose values go together" in words
    assert "sweep.devices=null Devices that train jobs at the same time" in words


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)


@settings(max_examples=25)  # Hydra's parser takes its time
@given(st.lists(st.tuples(TEXT, TEXT), min_size=2, max_size=4))
def test_any_text_comes_back_as_it_was_typed(values: list[tuple[str, str]]) -> None:
    """Quotes, backslashes, interpolations."""
    quoted = [[_quoted(text) for text in texts] for texts in zip(*values, strict=True)]
    typed = [f"a.b={','.join(quoted[0])}", "seed=0,1", f"+c={','.join(quoted[1])}"]
    parser = OverridesParser.create()
    together, seed = joined(parser.parse_overrides(typed), ["c", "a.b"])
    assert seed == "seed=0,1"
    (override,) = parser.parse_overrides([together])
    for case, wanted in zip(override.sweep_string_iterator(), values, strict=True):
        pair = parser.parse_overrides(apart([f"sweep.joined={case}"]))
        found = {each.get_key_element(): each.value() for each in pair}
        assert found == {"+c": wanted[1], "a.b": wanted[0]}


def _quoted(text: str) -> str:
    return QuotedString(text, Quote.single).with_quotes()
