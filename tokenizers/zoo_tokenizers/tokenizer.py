"""The interface every tokenizer implements.

Text is a Python string in which bytes that are not UTF-8 appear as lone surrogates (Python's
`surrogateescape`), so that a string can carry any file exactly.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike, NDArray

_DIGEST_FILE = "sha256.txt"

Ids = NDArray[np.unsignedinteger]


class TokenizerError(ValueError):
    """A text or a vocabulary that the tokenizer can't work with: one line saying what and where."""


class UnknownCharacter(TokenizerError):
    """The text holds a character that the vocabulary lacks."""


class Tokenizer(ABC):
    """Turns text into token ids and back.

    A tokenizer is made from its settings, learns what it learns from the train split (`fit`), and
    is rebuilt elsewhere from its settings and its files, without the corpus.
    """

    lossless: bool = True
    """Whether decode(encode(text)) == text for every text it accepts."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """How many ids there are; ids are below it."""

    @property
    @abstractmethod
    def token_bytes(self) -> NDArray[np.int64]:
        """(V,): how many bytes of UTF-8 text each id stands for. Meaningful when lossless."""

    @abstractmethod
    def encode(self, text: str) -> Ids:
        """Ids (N,) in the smallest unsigned type that holds the vocabulary.

        Raises UnknownCharacter naming the character and its place.
        """

    @abstractmethod
    def decode(self, ids: Sequence[int] | NDArray[np.integer]) -> str:
        """The text that the ids stand for."""

    def encode_known(self, text: str) -> tuple[Ids, Counter[str]]:
        """Encode what the vocabulary holds, and count the characters that it lacks.

        For evaluation data: what is left out must be accounted for by the caller.
        """
        return self.encode(text), Counter()

    def fit(self, train_text: str) -> None:  # noqa: B027 - most tokenizers learn nothing
        """Learn the vocabulary from the train split, the only text it may be learnt from."""

    def files(self) -> dict[str, bytes]:
        """What was learnt, as files by name; with the settings, all that `restore` needs."""
        return {}

    def restore(self, files: Mapping[str, bytes]) -> None:  # noqa: B027 - as for fit
        """Take up what `files` returned in another process."""

    def save(self, folder: Path) -> None:
        """Write the learnt files and, last, the digest they must have when read back."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files().items():
            (folder / name).write_bytes(content)
        (folder / _DIGEST_FILE).write_text(self.digest + "\n")

    def load(self, folder: Path) -> None:
        """Take up what `save` wrote. Raises TokenizerError if it is not whole or not the same."""
        try:
            files = {
                path.name: path.read_bytes()
                for path in folder.iterdir()
                if path.name != _DIGEST_FILE
            }
            expected = (folder / _DIGEST_FILE).read_text().strip()
            self.restore(files)
        except (OSError, KeyError, ValueError) as error:
            raise TokenizerError(f"{folder} holds no whole tokenizer: {error!r}") from error
        if self.digest != expected:
            raise TokenizerError(
                f"the tokenizer in {folder} is not the one saved there: its SHA-256 is "
                f"{self.digest}, recorded was {expected}"
            )

    @property
    def digest(self) -> str:
        """SHA-256 over the class and the learnt files: equal digests encode equally."""
        digest = hashlib.sha256(type(self).__qualname__.encode())
        for name, content in sorted(self.files().items()):
            digest.update(f"\0{name}\0{len(content)}\0".encode())
            digest.update(content)
        return digest.hexdigest()


def smallest_unsigned(vocab_size: int) -> DTypeLike:
    """The smallest unsigned integer type that holds every id below vocab_size."""
    if not 1 <= vocab_size <= 2**32:
        raise TokenizerError(f"a vocabulary of {vocab_size} ids can't be stored in 32 bits")
    return np.min_scalar_type(vocab_size - 1)
