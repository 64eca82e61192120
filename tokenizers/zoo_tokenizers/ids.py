"""Data that are ids already: the tokenizer only gives each of them a name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from zoo_tokenizers.tokenizer import Ids, Tokenizer, UnknownCharacter, smallest_unsigned


class GivenIds(Tokenizer):
    """Each id is written as a word and a space. words: (V,), distinct; they follow from the data.

    What these words would take in bytes says nothing about the data: an id stands for none, and
    there are no bits per byte.
    """

    lossless = False
    of_ids = True

    def __init__(self, words: Sequence[str]) -> None:
        self._set(words)

    def _set(self, words: Sequence[str]) -> None:
        self._ids = {word: id_ for id_, word in enumerate(words)}
        if len(self._ids) < len(words) or any(word.split() != [word] for word in words):
            raise ValueError("the words of ids must be distinct, and hold no spaces")
        self.pieces = tuple(f"{word} ".encode() for word in words)

    @property
    def token_bytes(self) -> NDArray[np.int64]:
        return np.zeros(len(self.pieces), dtype=np.int64)

    def last_safe_cut(self, text: str) -> int:
        return text.rfind(" ") + 1

    def encode(self, text: str) -> Ids:
        words = text.split()
        try:
            ids = [self._ids[word] for word in words]
        except KeyError as error:
            word = error.args[0]
            raise UnknownCharacter(
                f"{word!r:.40}, word {words.index(word) + 1} of its text, is the name of no id"
            ) from None
        return np.array(ids, dtype=smallest_unsigned(len(self.pieces)))

    def files(self) -> dict[str, bytes]:
        return {"words.json": json.dumps(list(self._ids)).encode()}

    def restore(self, files: Mapping[str, bytes]) -> None:
        self._set([str(word) for word in json.loads(files["words.json"])])
