"""The test score in blocks of text, in the run's folder."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from harness.data.alone import LoneText
from harness.data.dataset import Dataset
from harness.evaluation.score import Score
from harness.evaluation.token_losses import tokens_in_order
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
    tokens = tokens_in_order(LoneText.part_of(dataset, "test"), dataset.tokenizer, score)
    blocks = Blocks(
        dataset.digest,
        start,
        split.bytes,
        block_size(split.bytes),
        tuple(np.round(per_block(tokens.nats, tokens.sizes), 6).tolist()),
        DEFINITION,
    )
    blocks.write(folder)
