"""Datasets of small texts, made by a tokenizer through a cache."""

from __future__ import annotations

from pathlib import Path

from harness.data.assets import Assets
from harness.data.corpus import TextFile
from harness.data.dataset import Dataset, prepare
from harness.data.encoded import Split
from zoo_tokenizers import Tokenizer

SHARES = [0.8, 0.1, 0.1]


def dataset_of(
    folder: Path, content: bytes, tokenizer: Tokenizer, split: list[float] = SHARES
) -> Dataset:
    """Of a file with this content, through a cache in the same folder."""
    (folder / "text").write_bytes(content)
    return prepare(TextFile(str(folder / "text"), split), tokenizer, Assets((), folder / "cache"))


def parts_of(dataset: Dataset) -> list[Split]:
    return [part for part in (dataset.train, dataset.val, dataset.test) if part is not None]
