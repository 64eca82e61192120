"""The score of a held-out part without what train has, too: is it memory?"""

from __future__ import annotations

import math

import numpy as np

from harness.data.alone import LoneText
from harness.data.dataset import Dataset
from harness.data.overlap import LONG, MOST_HELD_OUT, MOST_SEARCHED, covered, found_in
from harness.evaluation.score import Score
from harness.evaluation.token_losses import UNKNOWN, tokens_in_order
from harness.runs.summary import WithoutCopied


def without_copied(dataset: Dataset, part: str, score: Score) -> WithoutCopied | None:
    """The score of the tokens of which no byte lies in a passage of LONG bytes or more that train
    has, byte for byte. part: val or test, whose score it is. A token of no bytes, which ends a
    document, goes with the byte before it.

    None without bits per byte, for examples of a task, for a stream, whose train is not at hand,
    and for a part that is too long to be looked for, or was not scored to its end. Raises
    RunFailure if the text is no longer the one that was scored.
    """
    alone = LoneText.part_of(dataset, part)
    size = alone.span.stop - alone.span.start
    too_long = size > MOST_HELD_OUT or score.share < 1
    has_train = dataset.task is None and dataset.shards is None
    if not score.lossless or not has_train or too_long:
        return None
    train = dataset.parts[0]
    train = train._replace(stop=min(train.stop, train.start + MOST_SEARCHED))
    content = dataset.text.read(alone.span.start, alone.span.stop)
    copied = covered(found_in(content, dataset.text, train, LONG), LONG, size)
    tokens = tokens_in_order(alone, dataset.tokenizer, score)
    before = np.concatenate(([0], np.cumsum(copied)))
    ends = np.cumsum(tokens.sizes)
    starts = np.maximum(0, np.minimum(ends - tokens.sizes, ends - 1))
    keeps = tokens.counts & (before[ends] == before[starts])
    nats = float(tokens.nats[keeps].sum(dtype=np.float64))
    count, size = int((keeps & (tokens.ids != UNKNOWN)).sum()), int(tokens.sizes[keeps].sum())
    return WithoutCopied(
        passage=LONG,
        searched=train.stop - train.start,
        copied=int(before[-1]),
        tokens=count,
        bytes=size,
        nats_per_token=nats / count if count else None,
        bits_per_byte=nats / math.log(2) / size if size else None,
    )
