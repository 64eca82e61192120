"""Compressors as a floor: what the test text costs once the train text is known."""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Callable
from dataclasses import dataclass

from harness.data.dataset import Dataset
from harness.runs.summary import Compressed

XZ_WINDOW = 64 << 20  # bytes, of preset 9


@dataclass(frozen=True)
class Compressor:
    """window: how far back it looks, in bytes."""

    window: int
    compress: Callable[[bytes], bytes]


def _xz(text: bytes) -> bytes:
    """Without a container. A dictionary of the text's size finds what one of 64 MiB would, in a
    fraction of its memory."""
    size = min(XZ_WINDOW, max(4096, len(text)))
    lzma2 = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": size}
    return lzma.compress(text, format=lzma.FORMAT_RAW, filters=[lzma2])


# Those that come with every Python.
COMPRESSORS = {
    "xz -9e": Compressor(XZ_WINDOW, _xz),
    "bz2 -9": Compressor(900_000, lambda text: bz2.compress(text, 9)),
}


def _text(dataset: Dataset, part: int) -> bytes:
    """Raises RunFailure if it is no longer the text that was encoded."""
    with dataset.text.unchanged(dataset.parts[part]) as pieces:
        return "".join(pieces).encode("utf-8", "surrogateescape")


def compress_test(dataset: Dataset) -> dict[str, Compressed]:
    """Each compressor's bits per byte of test given train: those of train and test together, less
    those of train alone. None for texts longer than the longest window."""
    if dataset.test is None or dataset.train.bytes + dataset.test.bytes > XZ_WINDOW:
        return {}
    size = dataset.test.bytes
    train, test = _text(dataset, 0), _text(dataset, 2)
    found = {}
    for name, compressor in COMPRESSORS.items():
        more = len(compressor.compress(train + test)) - len(compressor.compress(train))
        found[name] = Compressed(bits_per_byte=8 * more / size, window=compressor.window)
    return found
