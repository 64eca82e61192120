"""Samples that mark what they have copied from train."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.sampling.copied import mark_copied
from tests.conftest import Ended
from tests.data.datasets import dataset_of
from zoo_tokenizers.bytes import Bytes

# Of train, the first 80 %: "Ten green bottles hanging on the wall é日" and digits.
PLAY = "Ten green bottles hanging on the wall é日".encode()
CONTENT = PLAY + b"0123456789" * 16 + b"never in train" * 4


def marked(folder: Path, *texts: str, begins: int = 0, length: int = 8) -> tuple[list[str], str]:
    return mark_copied(texts, begins, dataset_of(folder, CONTENT, Bytes()), length)


def test_what_train_has_is_marked(tmp_path: Path) -> None:
    found, line = marked(tmp_path, "Six green bottles fell on the wall, never in train")
    assert found == ["Six⟦ green bottles ⟧fell⟦ on the wall⟧, never in train"]
    assert line == (
        "27 of 50 sampled bytes (54%) lie in passages of 8 bytes or more that train has, too; the "
        "longest: ' green bottles '"
    )
    assert marked(tmp_path, "nothing of it", "")[0] == ["nothing of it", ""]


def test_the_prompt_is_not_the_models(tmp_path: Path) -> None:
    """But a passage may begin in it."""
    prompt = "Ten green bottles"
    found, line = marked(tmp_path, f"{prompt} hang", f"{prompt}, hang", begins=len(prompt))
    assert found == [f"{prompt}⟦ hang⟧", f"{prompt}, hang"]
    assert line.startswith("5 of 11 sampled bytes (45%)")


def test_texts_are_looked_for_one_by_one_and_in_whole_characters(tmp_path: Path) -> None:
    found, _ = marked(tmp_path, "Ten gre", "en bottles")
    assert found == ["Ten gre", "⟦en bottles⟧"]
    # é and è begin with the same byte.
    assert marked(tmp_path, "the wall è")[0] == ["⟦the wall ⟧è"]
    assert marked(tmp_path, "the wall é日")[0] == ["⟦the wall é日⟧"]


@pytest.mark.parametrize("options", [(), ("--num-samples", 2), ("--beams", 2)])
def test_the_command(options: tuple[object, ...], command, finished_run: Path) -> None:  # noqa: ANN001
    """The same samples as without, but for the marks."""
    asked = ("sample", finished_run, "--tokens", 60, *options)
    plain, found = command(*asked), command(*asked, "--novelty", 2)
    assert isinstance(found, Ended)
    assert (found.code, plain.err) == (0, "")
    assert found.out.replace("⟦", "").replace("⟧", "") == plain.out
    assert "⟦" in found.out
    assert found.err.count("\n") == 1
    assert "lie in passages of 2 bytes or more that train has, too; the longest: '" in found.err


def test_refused(command, finished_run: Path) -> None:  # noqa: ANN001
    for options, message in (
        (("--novelty", 0), "--novelty 0 must be at least 1"),
        (("--data-path", "x"), "--data-path has no meaning without --novelty"),
        (("--novelty", "--data-path", "none"), "none can't be read"),
    ):
        ended = command("sample", finished_run, *options)
        assert ended.code == 2
        assert message in ended.err
