"""Compressors as a floor: what the test text costs once the train text is known."""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from harness.data.dataset import Dataset
from harness.runs.summary import Compressed

XZ_WINDOW = 64 << 20  # bytes, of preset 9
PART = 1 << 20  # bytes that are compressed without a pause: about a second


@dataclass(frozen=True)
class Compressor:
    """window: how far back it looks, in bytes. make: one of the standard library's, for a text of
    so many bytes."""

    window: int
    make: Callable[[int], Any]

    def compress(self, text: bytes, on_part: Callable[[], object] = lambda: None) -> bytes:
        """on_part: called between parts of the text."""
        compressor, found = self.make(len(text)), list[bytes]()
        for start in range(0, len(text), PART):
            on_part()
            found.append(compressor.compress(text[start : start + PART]))
        return b"".join([*found, compressor.flush()])


def _xz(text_bytes: int) -> lzma.LZMACompressor:
    """Without a container. A dictionary of the text's size finds what one of 64 MiB would, in a
    fraction of its memory."""
    size = min(XZ_WINDOW, max(4096, text_bytes))
    lzma2 = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": size}
    return lzma.LZMACompressor(format=lzma.FORMAT_RAW, filters=[lzma2])


# Those that come with every Python.
COMPRESSORS = {
    "xz -9e": Compressor(XZ_WINDOW, _xz),
    "bz2 -9": Compressor(900_000, lambda text_bytes: bz2.BZ2Compressor(9)),
}


def _text(dataset: Dataset, part: int) -> bytes:
    """Raises RunFailure if it is no longer the text that was encoded."""
    with dataset.text.unchanged(dataset.parts[part]) as pieces:
        return "".join(pieces).encode("utf-8", "surrogateescape")


def compress_test(
    dataset: Dataset, on_part: Callable[[], object] = lambda: None
) -> dict[str, Compressed]:
    """Each compressor's bits per byte of test given train: those of train and test together, less
    those of train alone. None for texts longer than the longest window, nor for documents: what
    lies between them has no bytes, and would cost a compressor nothing; nor for ids."""
    if dataset.test is None or dataset.test.documents is not None or dataset.tokenizer.of_ids:
        return {}
    if dataset.train.bytes + dataset.test.bytes > XZ_WINDOW:
        return {}
    size = dataset.test.bytes
    train, test = _text(dataset, 0), _text(dataset, 2)
    found = {}
    for name, compressor in COMPRESSORS.items():
        both, alone = (len(compressor.compress(each, on_part)) for each in (train + test, train))
        more = both - alone
        found[name] = Compressed(bits_per_byte=8 * more / size, window=compressor.window)
    return found
