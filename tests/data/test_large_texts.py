"""Texts that take minutes: the memory of a gigabyte, and the speed of encoding."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.cli.hydra_app import compose
from harness.common.paths import REPOSITORY
from harness.config.settings import read_settings
from harness.data import encoded
from harness.data.assets import Assets
from harness.data.corpus import Text
from zoo_tokenizers import Tokenizer

MEASURE = """
import sys
from pathlib import Path
from harness.cli.hydra_app import compose
from harness.config.settings import read_settings
from harness.data.assets import Assets
from harness.data.corpus import TextFile
from harness.data.dataset import prepare
from harness.compute.memory import PeakMemory
from zoo_tokenizers import Tokenizer
import torch
name, path, cache, mirror = sys.argv[1:]
tokenizer = read_settings(compose([f"tokenizer={name}"])).build("tokenizer", Tokenizer)
corpus = TextFile(path, [0.8, 0.1, 0.1])
memory = PeakMemory(torch.device("cpu"))
dataset = prepare(corpus, tokenizer, Assets((Path(mirror),), Path(cache)))
print(memory.read(), sum(
    part.bytes for part in (dataset.train, dataset.val, dataset.test)
))
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "copies"),
    [("p50k", 897), ("char", 897), ("sentencepiece", 90), ("bpe", 90), ("bert", 90)],
)
def test_a_gigabyte_of_text_takes_less_memory(
    name: str, copies: int, assets: Path, tmp_path: Path
) -> None:
    """Learning and encoding 1 GB (or 0.1 GB by the slower ones), in a process of its own that holds
    PyTorch as well."""
    corpus = (assets / "tiny_shakespeare.txt").read_bytes()
    with (tmp_path / "text").open("wb") as file:
        for _ in range(copies):
            file.write(corpus)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, name, tmp_path / "text", tmp_path / "cache", assets],
        capture_output=True, text=True, cwd=REPOSITORY,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    peak, size = map(int, done.stdout.split())
    shutil.rmtree(tmp_path)
    assert size == copies * len(corpus)
    assert 1e8 < peak < 1e9  # more than PyTorch alone: it was measured


def library_speed(name: str, tokenizer: Any, text: str) -> Callable[[], object]:
    """The quickest way its library offers to encode a text in one stream."""
    lines = text.splitlines(keepends=True)
    return {
        "p50k": lambda: tokenizer._encoding.encode_ordinary(text),
        "cl100k": lambda: tokenizer._encoding.encode_ordinary(text),
        "sentencepiece": lambda: tokenizer._processor.encode(lines, num_threads=1),
        "bpe": lambda: [e.ids for e in tokenizer._tokenizer.encode_batch(lines)],
        "bert": lambda: [e.ids for e in tokenizer._tokenizer.encode_batch(lines)],
    }[name]


@pytest.mark.long
@pytest.mark.parametrize("name", ["p50k", "cl100k", "sentencepiece", "bpe", "bert"])
def test_encoding_is_as_quick_as_the_library(
    name: str, assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From file to file, with the digests taken on the way: 80 % of the library's own speed."""
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    content = (assets / "tiny_shakespeare.txt").read_bytes() * 4
    tokenizer = read_settings(compose([f"tokenizer={name}"])).build("tokenizer", Tokenizer)
    tokenizer.fetch(Assets((assets,), tmp_path))
    tokenizer.fit([content[:1_000_000].decode()])
    (tmp_path / "text").write_bytes(content)
    text = Text(tmp_path / "text")
    whole, _ = text.spans([(0, text.size)])
    alone = library_speed(name, tokenizer, content.decode())

    def ours() -> None:
        with (tmp_path / "ids").open("wb") as file, text.unchanged(whole) as strings:
            encoded._encode(file, strings, whole, tokenizer)

    def seconds(work: Callable[[], object]) -> float:
        started = time.process_time()
        work()
        return time.process_time() - started

    # By turns, so that what else the machine does disturbs both alike.
    pairs = [(seconds(alone), seconds(ours)) for _ in range(5)]
    assert min(own for _, own in pairs) <= min(library for library, _ in pairs) / 0.8
