"""What `python -m harness.prepare` says of a tokenizer on a corpus."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.cli.hydra_app import compose
from harness.data.assets import Assets
from harness.data.corpus import TextFile
from harness.data.dataset import prepare
from harness.data.describe import describe, render
from harness.prepare import task
from tests.conftest import Ended
from zoo_tokenizers import Tokenizer
from zoo_tokenizers.bytes import Bytes
from zoo_tokenizers.characters import Characters
from zoo_tokenizers.huggingface import BytePairs

# train is the first 80 bytes: "ab" 38 times, then "é", "y", "z".
TEXT = "ab" * 38 + "éyz" + "abéxéxéx" + "a" * 9


def described(folder: Path, tokenizer: Tokenizer, text: str = TEXT) -> dict[str, Any]:
    (folder / "text").write_text(text)
    corpus = TextFile(str(folder / "text"), [0.8, 0.1, 0.1])
    return describe(prepare(corpus, tokenizer, Assets((), folder / "cache")))


def test_the_numbers(tmp_path: Path) -> None:
    assert len(TEXT.encode()) == 100
    found = described(tmp_path, Characters())
    one = {"documents": None}  # it is one text
    assert found["parts"] == {
        "train": {"bytes": 80, "tokens": 79, "bytes_per_token": 80 / 79, "unknown": 0, **one},
        "val": {"bytes": 10, "tokens": 5, "bytes_per_token": 2.0, "unknown": 2, **one},
        "test": {"bytes": 10, "tokens": 9, "bytes_per_token": 10 / 9, "unknown": 1, **one},
    }
    assert (found["vocab_size"], found["stored_as"]) == (5, "uint8")
    assert found["used"] == 5
    assert found["seen"] == {1: 0, 10: 3, 100: 5}
    assert found["rare"] == ["'é'", "'y'", "'z'"]  # the longest in bytes first
    assert found["longest"] == ["'é'", "'a'", "'b'", "'y'", "'z'"]
    assert found["one_byte"] == pytest.approx(78 / 79)
    assert found["partial"] == 0
    assert (found["exact"], found["sampled_bytes"]) == (True, 80)


def test_bytes_are_half_characters(tmp_path: Path) -> None:
    found = described(tmp_path, Bytes())
    assert found["one_byte"] == 1
    assert found["partial"] == pytest.approx(2 / 80)
    assert found["used"] == 6
    assert found["seen"] == {1: 250, 10: 254, 100: 256}


def test_learnt_pairs(tmp_path: Path) -> None:
    found = described(tmp_path, BytePairs(vocab_size=300), "alphabet soup\n" * 20 + " " * 70)
    assert found["longest"] == ["'alphabet'", "' soup'", "'\\n'"]
    assert found["rare"] == []
    assert found["seen"] == {1: 264, 10: 264, 100: 267}
    assert found["one_byte"] == pytest.approx(1 / 3)
    assert found["notes"] == [
        "the vocabulary has 267 ids: the text does not support tokenizer.vocab_size=300"
    ]


def test_what_is_not_exact_is_said(tmp_path: Path) -> None:
    class Upper(Bytes):
        lossless = False

        def encode(self, text: str) -> np.ndarray:
            return super().encode(text.upper())

    found = described(tmp_path, Upper())
    assert found["exact"] is False
    assert "way back         not exact" in render("text", "upper", found)
    assert "lossy" in render("text", "upper", found)
    (note,) = [note for note in found["notes"] if "lossy" in note]
    assert "it changes" in note


def test_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text").write_text("to be, or not to be, that is the question\n" * 100)
    chosen = ["data=text", f"data.path={tmp_path / 'text'}", "tokenizer=bpe", "assets=[]"]
    cfg = compose([*chosen, "tokenizer.vocab_size=1000", f"cache={tmp_path / 'cache'}"])
    assert task(cfg) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("text by bpe: ")
    assert lines[0].endswith("ids (uint16), lossless")
    labels = [line[:17].strip() for line in lines]
    for label in (
        *("used in train", "longest", "never seen", "seen < 10 times", "seen < 100 times", "rare"),
        *("single bytes", "half characters", "way back", "speed"),
    ):
        assert label in labels
    assert "question'" in lines[labels.index("longest")]
    assert "exact on 3,360 bytes of train" in lines[labels.index("way back")]
    assert lines[-1].startswith("note: the vocabulary has ")


def test_the_command(
    process: Callable[..., subprocess.CompletedProcess[str]],
    command: Callable[..., Ended],
    tmp_path: Path,
) -> None:
    """A mistake is one line and exit code 2; nothing but the cache is written."""
    chosen = ("data=python_docs", f"cache={tmp_path / 'cache'}")
    done = process("prepare", *chosen, "tokenizer=bytes")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("python_docs by bytes: 256 ids")
    assert list((tmp_path / "here").iterdir()) == []
    ended = command("prepare", *chosen, "tokenizer=tiktoken", "tokenizer.encoding=o200k")
    assert (ended.code, ended.out) == (2, "")
    assert "Did you mean o200k_base" in ended.err
    assert ended.err.count("\n") == 1
