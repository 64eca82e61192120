"""Every distinct character of the train split is a token, in code-point order (as in nanoGPT)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from zoo_tokenizers.tokenizer import (
    Ids,
    Tokenizer,
    TokenizerError,
    UnknownCharacter,
    smallest_unsigned,
)

_FIRST_SURROGATE, _LAST_SURROGATE = 0xD800, 0xDFFF


class Characters(Tokenizer):
    """Id = rank of the character among those of the train split."""

    def __init__(self) -> None:
        self._code_points: NDArray[np.uint32] = np.empty(0, dtype=np.uint32)

    @property
    def vocab_size(self) -> int:
        return len(self._code_points)

    @property
    def token_bytes(self) -> NDArray[np.int64]:
        points = self._code_points
        return np.searchsorted([0x80, 0x800, 0x10000], points, side="right") + 1

    def fit(self, train_text: str) -> None:
        points = _code_points(train_text)
        _refuse_undecodable(train_text, points)
        if not len(points):
            raise TokenizerError("the train split is empty: there are no characters to learn")
        self._code_points = np.unique(points)

    def encode(self, text: str) -> Ids:
        ids, known = self._look_up(text)
        if not known.all():
            at = int(np.argmin(known))
            raise UnknownCharacter(
                f"character {text[at]!r} at offset {at} is not among the {self.vocab_size} "
                "characters of the train split; leave it out or use tokenizer=bytes"
            )
        return ids

    def encode_known(self, text: str) -> tuple[Ids, Counter[str]]:
        ids, known = self._look_up(text)
        if known.all():
            return ids, Counter()
        return ids[known], Counter(text[at] for at in np.flatnonzero(~known))

    def _look_up(self, text: str) -> tuple[Ids, NDArray[np.bool_]]:
        points = _code_points(text)
        _refuse_undecodable(text, points)
        ranks = np.searchsorted(self._code_points, points).clip(max=self.vocab_size - 1)
        ids = ranks.astype(smallest_unsigned(self.vocab_size))
        return ids, self._code_points[ranks] == points

    def decode(self, ids: Sequence[int] | NDArray[np.integer]) -> str:
        return self._code_points[np.asarray(ids, dtype=np.int64)].tobytes().decode("utf-32-le")

    def files(self) -> dict[str, bytes]:
        return {"characters.txt": self._code_points.tobytes().decode("utf-32-le").encode()}

    def restore(self, files: Mapping[str, bytes]) -> None:
        self._code_points = _code_points(files["characters.txt"].decode())


def _code_points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def _refuse_undecodable(text: str, points: NDArray[np.uint32]) -> None:
    """A lone surrogate stands for a byte that is no UTF-8: that is no character."""
    bad = (points >= _FIRST_SURROGATE) & (points <= _LAST_SURROGATE)
    if bad.any():
        at = int(np.argmax(bad))
        offset = len(text[:at].encode("utf-8", "surrogateescape"))
        raise TokenizerError(
            f"byte 0x{ord(text[at]) & 0xFF:02x} at byte offset {offset} is not UTF-8: "
            "it is no character; use tokenizer=bytes"
        )
