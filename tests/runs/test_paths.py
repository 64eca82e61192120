"""No name of a run or of a download leads to another folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.common.errors import UsageError
from harness.config.build import build_object
from harness.data import corpus
from tests.conftest import plain
from tests.runs.tampering import Command


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", "/etc/passwd"),
        ("model", "../../out"),
        ("tokenizer", ".."),
        ("tokenizer", "a b"),
        ("data", "x" * 300),
    ],
)
@pytest.mark.parametrize("mode", [(), ("-m",)])
def test_a_name_leads_nowhere_else(
    mode: tuple[str, ...], name: str, value: str, command: Command, small_text: Path, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    ended = command(
        "train", *mode, "data=text", f"data.path={small_text}", f'names.{name}="{value}"'
    )
    assert ended.code == 2
    assert f"names.{name}=" in ended.err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("file", ["../above.txt", "/etc/passwd", "a/../../b", "..", "", "a\0b"])
def test_a_download_stays_in_its_folder(file: str) -> None:
    """Or a configuration could write a file of its choice anywhere."""
    node = plain()["data"]
    with pytest.raises(UsageError, match=r"data: file=.* must be the plain name of a file"):
        build_object({**node, "file": file}, corpus.Corpus, "data")


def test_a_run_folder_that_can_not_be(command: Command, small_text: Path) -> None:
    ended = command("train", "data=text", f"data.path={small_text}", f"run_dir={'x' * 300}")
    assert ended.code == 2
    assert "File name too long" in ended.err
    assert len(ended.err.splitlines()) == 1
