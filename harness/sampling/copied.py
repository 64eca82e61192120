"""What a sample has in common with the text that the model was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from harness.data.dataset import Dataset
from harness.data.overlap import covered, found_in

OPEN, CLOSE = "⟦", "⟧"


def mark_copied(
    texts: Sequence[str], begins: int, dataset: Dataset, length: int
) -> tuple[list[str], str]:
    """The texts with OPEN and CLOSE around what lies in passages of `length` bytes or more that
    train has, too, and a line that says how much that is.

    begins: where a text goes on from its prompt, which is not marked, although a passage may begin
    in it.
    """
    contents = [text.encode() for text in texts]
    found = found_in(b"".join(contents), dataset.text, dataset.parts[0], length)
    marked, copied, made, longest = [], 0, 0, ""
    at = 0
    for text, content in zip(texts, contents, strict=True):
        own = found[at : at + max(0, len(content) - length + 1)]
        at += len(content)
        sizes = [len(character.encode()) for character in text]
        is_copied = np.zeros(len(text), dtype=np.bool_)
        if sizes:
            starts = np.cumsum([0, *sizes[:-1]])
            is_copied = np.logical_and.reduceat(covered(own, length, len(content)), starts)
        is_copied[:begins] = False
        borders = np.flatnonzero(np.diff(is_copied, prepend=False, append=False)).tolist()
        copied += sum(size for size, each in zip(sizes, is_copied, strict=True) if each)
        made += sum(sizes[begins:])
        pieces = [text[start:stop] for start, stop in pairwise([0, *borders, len(text)])]
        for number in range(1, len(pieces), 2):
            longest = max(longest, pieces[number], key=len)
            pieces[number] = f"{OPEN}{pieces[number]}{CLOSE}"
        marked.append("".join(pieces))
    train = "train" if dataset.shards is None else "the beginning of train (data.first_bytes)"
    line = f"{copied:,} of {made:,} sampled bytes ({copied / max(1, made):.0%}) lie in passages of "
    line += f"{length} bytes or more that {train} has, too"
    return marked, f"{line}; the longest: {longest!r}" if longest else line
