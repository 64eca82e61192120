"""`eval.part`: the beginning of validation, named so and never ranked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness.common.errors import UsageError
from harness.data.encoded import Documents, Split
from harness.runs.load import load_run
from tests.conftest import Ended
from tests.small_runs import GPT_SMALL, summary, train

LENGTHS = np.array([1, 2, 3, 0])  # of the tokens' texts, the last one an end marker


def test_it_is_the_beginning_and_nothing_else(tmp_path: Path) -> None:
    assert train(tmp_path / "a", *GPT_SMALL, "eval.part=0.25") == 0
    assert train(tmp_path / "b", *GPT_SMALL) == 0
    part, whole = summary(tmp_path / "a"), summary(tmp_path / "b")
    split = load_run(tmp_path / "b/run", "best", "cpu", []).dataset().val
    assert split is not None
    text = bytes(split.ids.astype(np.uint8))  # as many as there are characters
    assert (part["val"]["share"], "share" in whole["val"]) == (0.25, False)
    assert part["val"]["tokens"] + 1 == -(-len(text) // 4)
    assert part["val"]["bytes"] < whole["val"]["bytes"] / 3
    again = load_run(tmp_path / "a/run", "best", "cpu", []).dataset().val
    assert again is not None
    assert list(again.ids) == list(split.ids[: len(again.ids)])
    assert part["test"]["tokens"] == whole["test"]["tokens"]


def test_of_documents_it_is_whole_ones() -> None:
    ids = np.array([3, 0, 1, 3, 2, 3, 1, 1, 3], np.uint8)
    split = Split(ids, 10, {}, Documents(np.flatnonzero(ids == 3)))
    part = split.beginning(0.4, LENGTHS)  # two of three
    assert list(part.ids) == [3, 0, 1, 3, 2, 3]
    assert part.documents is not None
    assert (len(part.documents), part.bytes, part.share) == (2, 6, 0.4)
    assert split.beginning(1.0, LENGTHS) is split


def test_characters_without_a_place_have_no_part() -> None:
    split = Split(np.array([0, 1], np.uint8), 5, {"é": 1}, None)
    with pytest.raises(UsageError, match=r"eval.part: validation has characters that are not"):
        split.beginning(0.5, LENGTHS)


def test_it_is_said_and_never_ranked(
    tmp_path: Path, command: Callable[..., Ended], capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path / "a", *GPT_SMALL, "eval.part=0.25")
    assert "validation is its first 25 % alone (eval.part)" in capsys.readouterr().err
    train(tmp_path / "b", *GPT_SMALL)
    ended = command("compare", str(tmp_path / "a/run"), str(tmp_path / "b/run"))
    assert ended.code == 0, ended.err
    assert "a part of validation (25 %: eval.part), so it is not ranked" in ended.out
