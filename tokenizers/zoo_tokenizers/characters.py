"""One token per distinct character of the train split, in code-point order (as in nanoGPT)."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from zoo_tokenizers.text import require_unicode
from zoo_tokenizers.tokenizer import (
    Ids,
    Tokenizer,
    TokenizerError,
    UnknownCharacter,
    smallest_unsigned,
)


class Characters(Tokenizer):
    """Id = rank of the character in the sorted characters of the train split."""

    recipe = "every character"

    def fit(self, train: Iterable[str]) -> None:
        seen, offset = np.empty(0, dtype=np.uint32), 0
        for text in train:
            require_unicode(text, offset)
            seen = np.union1d(seen, _code_points(text))
            offset += len(text.encode())
        if not len(seen):
            raise TokenizerError("the train split is empty: there are no characters to learn")
        self._set(seen)

    def encode(self, text: str) -> Ids:
        ids, known = self._look_up(text)
        if not known.all():
            at = int(np.argmin(known))
            raise UnknownCharacter(
                f"character {text[at]!r} at offset {at} is not among the {self.vocab_size} "
                "characters of the train split; remove it or use tokenizer=bytes"
            )
        return ids

    def encode_known(self, text: str) -> tuple[Ids, Counter[str]]:
        ids, known = self._look_up(text)
        if known.all():
            return ids, Counter()
        return ids[known], Counter(text[at] for at in np.flatnonzero(~known))

    def _look_up(self, text: str) -> tuple[Ids, NDArray[np.bool_]]:
        require_unicode(text)
        ranks = self._rank_of[_code_points(text)]
        known = ranks >= 0
        return ranks.astype(smallest_unsigned(self.vocab_size)), known

    def files(self) -> dict[str, bytes]:
        return {"characters.txt": b"".join(self.pieces)}

    def restore(self, files: Mapping[str, bytes]) -> None:
        self._set(_code_points(files["characters.txt"].decode()))

    def _set(self, code_points: NDArray[np.uint32]) -> None:
        self.pieces = [chr(point).encode() for point in code_points]
        self._rank_of = np.full(sys.maxunicode + 1, -1, dtype=np.int32)
        self._rank_of[code_points] = np.arange(len(code_points))


def _code_points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
