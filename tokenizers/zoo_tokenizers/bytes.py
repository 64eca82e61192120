"""One token per byte: 256 ids, nothing to learn, lossless for any file."""

from __future__ import annotations

import numpy as np

from zoo_tokenizers.tokenizer import Ids, Tokenizer


class Bytes(Tokenizer):
    """Id = byte value."""

    pieces = tuple(bytes([value]) for value in range(256))

    def encode(self, text: str) -> Ids:
        return np.frombuffer(text.encode("utf-8", "surrogateescape"), dtype=np.uint8)
