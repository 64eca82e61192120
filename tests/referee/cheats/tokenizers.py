"""Cheats in a tokenizer: bytes that were never paid for."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zoo_tokenizers import Tokenizer


class Bytes(Tokenizer):
    """An honest one."""

    pieces = tuple(bytes([n]) for n in range(256))

    def encode(self, text: str) -> NDArray[np.unsignedinteger]:
        return np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8)


class LowerCasing(Bytes):
    """Drops case, keeps the number of bytes, and is declared lossless."""

    def encode(self, text: str) -> NDArray[np.unsignedinteger]:
        return super().encode(text.lower())


class ClaimsMoreBytes(Bytes):
    """Says that a token of the text stands for two bytes, and another for none."""

    @property
    def token_bytes(self) -> NDArray[np.int64]:
        sizes = np.ones(256, np.int64)
        sizes[ord("e")], sizes[ord("~")] = 2, 0
        return sizes


class LearntOnTest(Bytes):
    """Reads the whole text while it learns from train: TEXT names the file."""

    read = b""

    def fit(self, train: Iterable[str]) -> None:
        self.read = b"".join(text.encode() for text in train)[:9]
        if "TEXT" in os.environ:
            self.read += Path(os.environ["TEXT"]).read_bytes()[-9:]

    def files(self) -> dict[str, bytes]:
        return {"read": self.read}
