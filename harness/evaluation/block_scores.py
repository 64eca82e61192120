"""The test score in blocks of text, in the run's folder."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from harness.data.alone import LoneText
from harness.data.dataset import Dataset
from harness.data.documents import DocumentText
from harness.data.encoded import Split
from harness.evaluation.score import Score
from harness.evaluation.token_losses import tokens_in_order, unknown_places
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
    tokens = tokens_in_order(LoneText.part_of(dataset, "test"), dataset.tokenizer, score)
    return Blocks(
        dataset.digest,
        start,
        split.bytes,
        block_size(split.bytes),
        tuple(np.round(per_block(tokens.nats, tokens.sizes), 6).tolist()),
        DEFINITION,
    )


def _of_documents(dataset: Dataset, text: DocumentText, split: Split, score: Score) -> Blocks:
    assert split.documents is not None, "of a text of documents"
    start = text.size - split.bytes
    ends_D = text.ends_in(start, text.size) - start
    nats = score.token_nats.astype(np.float64)
    nats_D = np.add.reduceat(nats, split.documents.borders[:-1])
    if len(split.unknown):
        at, _ = unknown_places(LoneText.part_of(dataset, "test"))
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
