"""Corpora that are ids already: made by another tokenizer, or no text at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Literal

import numpy as np
from numpy.typing import NDArray

from harness.common import contained
from harness.common.errors import UsageError
from harness.common.outside import open_regular
from harness.common.paths import expand
from harness.data.assets import Assets
from harness.data.corpus import Corpus, Text, called
from harness.data.documents import MOST_BYTES

KEY = "data.path="  # begins a message
AT_A_TIME = 1 << 20  # ids that are written at a time
LARGEST_VOCABULARY = 1 << 22


class IdText(Text):
    """Ids in memory, each a word of `width` bytes with the space behind it."""

    def __init__(self, words: bytes, width: int) -> None:
        super().__init__(words)
        self._width = width

    def cut(self, share: float) -> int:
        """Where a share of the ids ends."""
        return self._width * int(round(share * self.size / self._width, 6))


class IdFile(Corpus):
    """A file of ids: .npy, or any other name for plain numbers of the type `dtype` in this
    machine's order of bytes, as nanoGPT's train.bin (uint16). Split by ids.

    vocab_size: all ids lie below it.
    """

    def __init__(
        self,
        path: str,
        vocab_size: int,
        split: list[float],
        dtype: Literal["uint8", "uint16", "uint32", "int32", "int64"] | None = None,
        order: str = "random",
    ) -> None:
        super().__init__(split, order)
        if not 1 <= vocab_size <= LARGEST_VOCABULARY:
            raise ValueError(f"vocab_size={vocab_size} must lie in 1 … {LARGEST_VOCABULARY}")
        self.path, self.dtype, self._digits = expand(path), dtype, len(str(vocab_size - 1))
        self.found = called(path)
        self._is_array = self.path.suffix == ".npy"
        if self._is_array != (dtype is None):
            raise ValueError(
                f"dtype={dtype} is for plain numbers: a .npy file says it itself"
                if self._is_array
                else "dtype has no value; give one for plain numbers, such as uint16"
            )
        self._size = vocab_size
        self.words = [f"{number:0{self._digits}}" for number in range(vocab_size)]

    def read(self, assets: Assets) -> IdText:
        most = int(MOST_BYTES * contained.factor())
        with open_regular(self.path, KEY) as file:
            size = os.fstat(file.fileno()).st_size
            if size > most:
                raise UsageError(
                    f"{KEY}{self.path} has {size:,} bytes, and ids are held in memory: {most:,} "
                    "are the most; $ZOO_LIMITS=10 allows ten times as many"
                )
            try:
                ids = self._numbers(file)
            except (OSError, ValueError, EOFError) as error:
                words = " ".join(str(error).split())
                raise UsageError(f"{KEY}{self.path} can't be read: {words:.200}") from error
        self._require_below(ids)
        width = self._digits + 1
        written = bytearray()
        for start in range(0, len(ids), AT_A_TIME):
            some = ids[start : start + AT_A_TIME].astype(np.int64)
            block = np.full((len(some), width), ord(" "), dtype=np.uint8)
            for place in range(self._digits - 1, -1, -1):
                some, digit = np.divmod(some, 10)
                block[:, place] = ord("0") + digit
            written += block.tobytes()
        return IdText(bytes(written), width)

    def _numbers(self, file: IO[bytes]) -> NDArray[np.integer]:
        if not self._is_array:
            return np.frombuffer(file.read(), dtype=self.dtype)
        ids = np.load(file, allow_pickle=False)
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            raise ValueError(f"it holds {ids.dtype} of shape {ids.shape}, not a row of ids")
        return ids

    def _require_below(self, ids: NDArray[np.integer]) -> None:
        size = self._size
        for start in range(0, len(ids), AT_A_TIME):
            some = ids[start : start + AT_A_TIME]
            wrong = np.flatnonzero((some < 0) | (some >= size))
            if len(wrong):
                at = int(wrong[0])
                raise UsageError(
                    f"{KEY}{self.path}: id {some[at]} at place {start + at} lies outside "
                    f"data.vocab_size={size}"
                )

    def moved_to(self, path: Path) -> Corpus:
        return IdFile(str(path), self._size, self.split, self.dtype, self.order)
