"""Batches of documents: each row one from its beginning, and padding that is no target."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.data.batches import IGNORED, draw_batch, row_shape
from harness.data.encoded import Documents, Split

LENGTHS = [3, 1, 7, 12, 4]
MARKER = 99


def split_of(lengths: list[int]) -> Split:
    """Documents of these numbers of predictions, each token the only one of its kind."""
    borders = np.cumsum([0, *lengths])
    ids = np.arange(borders[-1] + 1, dtype=np.uint16) + 100
    ids[borders] = MARKER
    return Split(ids, 0, {}, Documents(borders))


def rows_of(split: Split, seq_len: int, steps: int = 300) -> list[tuple[list[int], list[int]]]:
    """Every row that was drawn: inputs and targets, without their padding."""
    found = []
    for step in range(steps):
        inputs, targets = draw_batch(split.ids, 1, step, 6, seq_len, split.documents)
        assert inputs.dtype == targets.dtype == torch.int64
        assert inputs.shape == targets.shape == (6, row_shape(split.documents, seq_len)[0])
        for ins, outs in zip(inputs.tolist(), targets.tolist(), strict=True):
            real = len(outs) - outs.count(IGNORED)
            assert IGNORED not in outs[:real]  # padding lies behind
            assert IGNORED not in ins
            found.append((ins[:real], outs[:real]))
    return found


@pytest.mark.parametrize("seq_len", [1, 5, 12, 64])
def test_rows_are_documents_and_every_target_comes_equally_often(seq_len: int) -> None:
    split = split_of(LENGTHS)
    assert split.documents is not None
    counts = np.zeros(len(split.ids))
    for inputs, targets in rows_of(split, seq_len):
        assert 1 <= len(targets) <= seq_len
        place = int(targets[0]) - 100 if targets[0] != MARKER else int(inputs[0]) - 99
        if targets[0] == MARKER and inputs[0] == MARKER:  # the document without a token
            place = 4
        assert split.ids[place - 1 : place - 1 + len(inputs)].tolist() == inputs
        assert split.ids[place : place + len(targets)].tolist() == targets
        assert MARKER not in inputs[1:]  # never another document's
        counts[place : place + len(targets)] += 1
    expected = counts[1:].mean()
    assert (abs(counts[1:] - expected) < 6 * expected**0.5).all()


def test_long_documents_begin_with_the_marker_and_go_on_without() -> None:
    split = split_of([12])
    found = {tuple(inputs) for inputs, _ in rows_of(split, 5)}
    assert found == {
        (MARKER, 101, 102, 103, 104), (105, 106, 107, 108, 109), (110, 111),
    }  # fmt: skip


def test_rows_are_as_long_as_the_longest_document_at_most() -> None:
    assert row_shape(split_of([3, 1, 8]).documents, 64) == (8, 4.0)
    assert row_shape(split_of([3, 1, 8]).documents, 4) == (4, 3.0)  # 3, 1, 4 and 4
    assert row_shape(None, 64, slice(-1, None)) == (64, 1)


def test_a_batch_of_documents_is_a_pure_function_of_seed_and_step() -> None:
    split = split_of(LENGTHS)
    one = draw_batch(split.ids, 5, 77, 4, 8, split.documents)
    draw_batch(split.ids, 5, 78, 4, 8, split.documents)
    again = draw_batch(split.ids, 5, 77, 4, 8, split.documents)
    other = draw_batch(split.ids, 6, 77, 4, 8, split.documents)
    assert all(map(torch.equal, one, again))
    assert not torch.equal(one[0], other[0])
