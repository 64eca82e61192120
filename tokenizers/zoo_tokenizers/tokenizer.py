"""The interface every tokenizer implements.

Text is a Python string in which bytes that are not UTF-8 appear as lone surrogates (Python's
`surrogateescape`), so that a string can carry any file exactly.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

_DIGEST_FILE = "sha256.txt"

Ids = NDArray[np.unsignedinteger]


class TokenizerError(ValueError):
    """A text or a vocabulary that the tokenizer can't work with: one line saying what and where."""


class UnknownCharacter(TokenizerError):
    """The text holds a character that the vocabulary lacks."""


class NotUnicode(TokenizerError):
    """The text holds a byte that is no UTF-8, and the tokenizer takes only characters.

    offset: where, in bytes from the start of the text.
    """

    def __init__(self, byte: int, offset: int) -> None:
        super().__init__(
            f"byte 0x{byte:02x} at byte offset {offset} is not UTF-8: it is no character; "
            "use tokenizer=bytes"
        )
        self.byte, self.offset = byte, offset


class Vocabularies(Protocol):
    """Where a tokenizer looks for what others published; harness.assets.Assets is one."""

    def locate(self, name: str) -> Path | None:
        """The file or folder of that name, if it is on this machine."""

    def find(self, file: str, url: str, sha256: str | None) -> Path:
        """The file's path, downloaded from `url` if it is not on this machine, and checked."""


class Tokenizer(ABC):
    """Turns text into token ids and back.

    A tokenizer is made from its settings, takes up a published vocabulary (`fetch`) or learns one
    from the train split (`fit`), and is rebuilt elsewhere from its settings and its files, without
    the corpus.
    """

    lossless: bool = True
    """Whether decode(encode(text)) == text for every text it accepts."""

    leaks: bool = False
    """Whether `fit` wants the whole text, validation and test included, instead of train alone."""

    recipe: str | None = None
    """All that decides what `fit` learns from a text, so that it need be learnt once only; None:
    it learns nothing, or learns it every time."""

    pieces: Sequence[bytes] = ()
    """(V,): the bytes that each id stands for. If lossless, the pieces of a text's ids joined are
    the text; if not, they are what the ids look like. Ids that no text is encoded to (special
    tokens, gaps in a published vocabulary) have their names."""

    @property
    def vocab_size(self) -> int:
        """How many ids there are; ids are below it."""
        return len(self.pieces)

    @property
    def token_bytes(self) -> NDArray[np.int64]:
        """(V,): how many bytes of UTF-8 text each id stands for. Exact when lossless."""
        return np.fromiter(map(len, self.pieces), dtype=np.int64, count=len(self.pieces))

    @abstractmethod
    def encode(self, text: str) -> Ids:
        """Ids (N,) in the smallest unsigned type that holds the vocabulary.

        Raises UnknownCharacter naming the character and its place, and NotUnicode.
        """

    def decode(self, ids: Sequence[int] | NDArray[np.integer]) -> str:
        """The text that the ids stand for; any id of the vocabulary may occur anywhere."""
        joined = b"".join([self.pieces[id_] for id_ in np.asarray(ids, dtype=np.int64).tolist()])
        return joined.decode("utf-8", "surrogateescape")

    def encode_known(self, text: str) -> tuple[Ids, Counter[str]]:
        """Encode what the vocabulary holds, and count the characters that it lacks.

        For evaluation data: what is left out must be accounted for by the caller.
        """
        return self.encode(text), Counter()

    def last_cut(self, text: str) -> int:
        """The last place where the text can be cut, whatever follows it: what comes before, encoded
        by itself, and what comes after, encoded by itself, give together the ids of the whole. 0
        if there is none. `text` starts where the whole does, or at such a place.

        This is how a text that does not fit in memory is encoded.
        """
        return len(text)

    def recut(self, texts: Iterable[str]) -> Iterator[str]:
        """A text that comes in pieces, cut again at the places of `last_cut`."""
        held, enough = "", 0
        for text in texts:
            held += text
            if len(held) < enough:
                continue
            cut = self.last_cut(held)
            # Where there is no place, the next look is at twice as much: each time from the end.
            enough = 0 if cut else 2 * len(held)
            if cut:
                yield held[:cut]
                held = held[cut:]
        if held:
            yield held

    def notes(self) -> list[str]:
        """What a reader of the numbers must know about the vocabulary, a sentence each."""
        return []

    def fetch(self, vocabularies: Vocabularies) -> None:  # noqa: B027 - most fetch nothing
        """Take up a published vocabulary. Raises TokenizerError if it can't be used."""

    def fit(self, train: Iterable[str]) -> None:  # noqa: B027 - most learn nothing
        """Learn the vocabulary from the train split, the only text it may be learnt from.

        train: the split in pieces, cut anywhere between characters.
        """

    def files(self) -> dict[str, bytes]:
        """What was fetched or learnt, by name; with the settings, all that `restore` needs."""
        return {}

    def restore(self, files: Mapping[str, bytes]) -> None:  # noqa: B027 - as for fit
        """Take up what `files` returned in another process."""

    def save(self, folder: Path) -> None:
        """Write the files and, last, the digest they must have when read back."""
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
        """SHA-256 over the class and its files: equal digests encode equally."""
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
