"""The test score in blocks of text, in the run's folder."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.data.dataset import Dataset
from harness.data.documents import DocumentText
from harness.data.encoded import Split
from harness.evaluation.score import Score
from harness.runs.blocks import Blocks, block_size, per_block, per_group
from harness.runs.summary import DEFINITION


def write_test_blocks(folder: Path, dataset: Dataset, score: Score) -> None:
    """Write the blocks of the test score; none for a lossy tokenizer, whose tokens have no known
    bytes, or for a NaN or infinite score.

    Raises RunFailure if the text is no longer the one that was scored.
    """
    split = dataset.test
    if split is None or not score.lossless or not math.isfinite(score.nats):
        return
    if isinstance(dataset.text, DocumentText):
        blocks = _of_documents(dataset, dataset.text, split, score)
    else:
        blocks = _of_text(dataset, split, score)
    blocks.write(folder)


def _of_text(dataset: Dataset, split: Split, score: Score) -> Blocks:
    start = dataset.text.size - split.bytes
    sizes = dataset.tokenizer.token_bytes[np.asarray(split.ids)]
    nats = np.concatenate(([0.0], score.token_nats))
    if split.unknown:
        # Unknown characters have no ids: insert their bytes and nats where they are in the text.
        at, own = _unknown_places(dataset, split)
        known_bytes_before = at - np.concatenate(([0], np.cumsum(own)[:-1]))
        index = np.searchsorted(np.cumsum(sizes) - sizes, known_bytes_before)
        sizes = np.insert(sizes, index, own)
        nats = np.insert(nats, index, split.unknown_nats / len(own))
    return Blocks(
        dataset.digest,
        start,
        split.bytes,
        block_size(split.bytes),
        tuple(np.round(per_block(nats, sizes), 6).tolist()),
        DEFINITION,
    )


def _of_documents(dataset: Dataset, text: DocumentText, split: Split, score: Score) -> Blocks:
    assert split.documents is not None, "of a text of documents"
    start = text.size - split.bytes
    ends_D = text.ends_in(start, text.size) - start
    nats = score.token_nats.astype(np.float64)
    nats_D = np.add.reduceat(nats, split.documents.borders[:-1])
    if len(split.unknown):
        at, _ = _unknown_places(dataset, split)
        count_D = np.bincount(np.searchsorted(ends_D, at, side="right"), minlength=len(ends_D))
        nats_D += split.unknown_nats / len(at) * count_D
    of_groups, sizes = per_group(nats_D, np.diff(ends_D, prepend=0))
    return Blocks(
        dataset.digest,
        start,
        split.bytes,
        block_size(split.bytes),
        tuple(np.round(of_groups, 6).tolist()),
        DEFINITION,
        tuple(sizes.tolist()),
    )


def _unknown_places(dataset: Dataset, split: Split) -> NDArray[np.int64]:
    """(2, N): where the unknown characters of the test text are, and how many bytes each has."""
    with dataset.text.unchanged(dataset.parts[2]) as pieces:
        return np.array(list(unknown_characters(pieces, split.unknown))).T


def unknown_characters(pieces: Iterable[str], unknown: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Yield (byte offset, bytes) of every occurrence of these characters in a text."""
    wanted = re.compile("[" + re.escape("".join(unknown)) + "]")
    at = 0
    for piece in pieces:
        last = 0
        for match in wanted.finditer(piece):
            at += _bytes(piece[last : match.start()])
            yield at, _bytes(match[0])
            at += _bytes(match[0])
            last = match.end()
        at += _bytes(piece[last:])


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogateescape"))
