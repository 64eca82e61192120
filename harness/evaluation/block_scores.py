"""The test score in blocks of text, in the run's folder."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from harness.data.dataset import Dataset
from harness.evaluation.score import Score
from harness.runs.blocks import Blocks, block_size, per_block
from harness.runs.summary import DEFINITION


def write_test_blocks(folder: Path, dataset: Dataset, score: Score) -> None:
    """Write the blocks of the test score; none for a lossy tokenizer, whose tokens have no known
    bytes, or for a NaN or infinite score.

    Raises RunFailure if the text is no longer the one that was scored.
    """
    split = dataset.test
    if split is None or not score.lossless or not math.isfinite(score.nats):
        return
    start = dataset.text.size - split.bytes
    sizes = dataset.tokenizer.token_bytes[np.asarray(split.ids)]
    nats = np.concatenate(([0.0], score.token_nats))
    if split.unknown:
        # Unknown characters have no ids: insert their bytes and nats where they are in the text.
        with dataset.text.unchanged(dataset.parts[2]) as pieces:
            places = np.array(list(unknown_characters(pieces, split.unknown)))
        at, own = places.T
        known_bytes_before = at - np.concatenate(([0], np.cumsum(own)[:-1]))
        index = np.searchsorted(np.cumsum(sizes) - sizes, known_bytes_before)
        sizes = np.insert(sizes, index, own)
        nats = np.insert(nats, index, split.unknown_nats / len(own))
    blocks = Blocks(
        dataset.digest,
        start,
        split.bytes,
        block_size(split.bytes),
        tuple(np.round(per_block(nats, sizes), 6).tolist()),
        DEFINITION,
    )
    blocks.write(folder)


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
