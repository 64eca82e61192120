"""Every byte is a token: 256 ids, nothing to learn, exact on any file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from zoo_tokenizers.tokenizer import Ids, Tokenizer


class Bytes(Tokenizer):
    """Id = byte value."""

    @property
    def vocab_size(self) -> int:
        return 256

    @property
    def token_bytes(self) -> NDArray[np.int64]:
        return np.ones(256, dtype=np.int64)

    def encode(self, text: str) -> Ids:
        return np.frombuffer(text.encode("utf-8", "surrogateescape"), dtype=np.uint8)

    def decode(self, ids: Sequence[int] | NDArray[np.integer]) -> str:
        return bytes(np.asarray(ids, dtype=np.uint8)).decode("utf-8", "surrogateescape")
