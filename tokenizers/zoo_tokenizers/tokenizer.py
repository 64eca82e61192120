"""The interface every tokenizer implements.

Text is a Python string. Bytes that are not UTF-8 appear as lone surrogates (`surrogateescape`), so
that a string can hold any file.
"""

from __future__ import annotations

import hashlib
import itertools
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

_DIGEST_FILE = "sha256.txt"
MAX_FILES = 8
MAX_VOCABULARY = 1 << 22
"""The most ids, counted before anything is allocated for them. The largest published vocabularies
have a quarter of a million."""

Ids = NDArray[np.unsignedinteger]


class TokenizerError(ValueError):
    """A text or a vocabulary that the tokenizer can't use. One line: what and where."""


class UnknownCharacter(TokenizerError):
    """The text contains a character that the vocabulary lacks."""


class NotUnicode(TokenizerError):
    """The text contains a byte that is not UTF-8, and the tokenizer encodes only characters.

    offset: its position in bytes.
    """

    def __init__(self, byte: int, offset: int) -> None:
        super().__init__(
            f"byte 0x{byte:02x} at byte offset {offset} is not UTF-8; use tokenizer=bytes"
        )
        self.byte, self.offset = byte, offset


@dataclass(frozen=True)
class WholeTexts:
    """Texts of which none continues the one before: documents. A chunked text is a plain iterable
    of strings instead."""

    texts: Iterable[str]

    def __iter__(self) -> Iterator[str]:
        return iter(self.texts)


class AssetFinder(Protocol):
    """Finds published vocabularies; implemented by harness.data.assets.Assets."""

    def locate(self, name: str) -> Path | None:
        """The file or folder of that name on this machine; None if there is none."""

    def find(self, file: str, url: str, sha256: str | None, unasked: str | None = None) -> Path:
        """The path of the file, downloaded from `url` if needed, with a checked digest. unasked:
        why the network is not asked."""


class Tokenizer(ABC):
    """Turns text into token ids and back.

    A tokenizer is built from its settings, then gets a published vocabulary (`fetch`) or learns one
    from the train split (`fit`). Settings and files (`save`, `load`) are enough to rebuild it
    without the corpus.
    """

    lossless: bool = True
    """Whether decode(encode(text)) == text for every text it accepts."""

    leaks: bool = False
    """Whether `fit` needs the whole text, validation and test included."""

    recipe: str | None = None
    """All that determines what `fit` learns from a text, the key of the cached result. None: `fit`
    learns nothing, or is not cached."""

    of_ids: bool = False
    """Whether the data are ids already, and it only names them (`GivenIds`)."""

    marker: int | None = None
    """The id that ends a document; None where texts are no documents (`EndMarker`)."""

    pieces: Sequence[bytes] = ()
    """(V,): the bytes of each id. For a lossless tokenizer the joined pieces of a text's ids are
    the text. Ids of no text (special tokens, gaps in a vocabulary) have their names."""

    @property
    def of_text(self) -> Tokenizer:
        """The tokenizer without an end marker."""
        return self

    @property
    def vocab_size(self) -> int:
        """The number of ids."""
        return len(self.pieces)

    @property
    def token_bytes(self) -> NDArray[np.int64]:
        """(V,): the number of bytes of each id; exact for a lossless tokenizer."""
        return np.fromiter(map(len, self.pieces), dtype=np.int64, count=len(self.pieces))

    @abstractmethod
    def encode(self, text: str) -> Ids:
        """Ids (N,) in the smallest unsigned type that holds the vocabulary.

        Raises UnknownCharacter, naming the character and its position, and NotUnicode.
        """

    def decode(self, ids: Sequence[int] | NDArray[np.integer]) -> str:
        """The text of the ids; any id may occur anywhere."""
        joined = b"".join([self.pieces[id_] for id_ in np.asarray(ids, dtype=np.int64).tolist()])
        return joined.decode("utf-8", "surrogateescape")

    def encode_known(self, text: str) -> tuple[Ids, Counter[str]]:
        """Encode the known characters, and count the unknown ones, whose cost the caller must
        account for."""
        return self.encode(text), Counter()

    def last_safe_cut(self, text: str) -> int:
        """The last position where `text` can be cut: whatever follows, the two sides encoded
        separately give the ids of the whole. 0 if there is none. `text` must start at the start of
        the whole, or at such a cut.

        A text that does not fit in memory is encoded in such chunks.
        """
        return len(text)

    def rechunk(self, texts: Iterable[str]) -> Iterator[str]:
        """The text in `texts`, cut at the positions of `last_safe_cut` instead. Whole texts stay as
        they are: no token reaches from one into the next."""
        if isinstance(texts, WholeTexts):
            yield from texts
            return
        buffer, needed = "", 0
        for text in texts:
            buffer += text
            if len(buffer) < needed:
                continue
            cut = self.last_safe_cut(buffer)
            # Without a cut, search again only when the buffer has doubled.
            needed = 0 if cut else 2 * len(buffer)
            if cut:
                yield buffer[:cut]
                buffer = buffer[cut:]
        if buffer:
            yield buffer

    def notes(self) -> list[str]:
        """What a reader of the scores must know about the vocabulary, one sentence each."""
        return []

    def fetch(self, assets: AssetFinder) -> None:  # noqa: B027 - most fetch nothing
        """Get a published vocabulary. Raises TokenizerError if it can't be used."""

    def fit(self, train: Iterable[str]) -> None:  # noqa: B027 - most learn nothing
        """Learn the vocabulary from the train split.

        train: the split in chunks, cut between any two characters; of documents `WholeTexts`.
        """

    def files(self) -> dict[str, bytes]:
        """What was fetched or learnt, by file name; the input of `restore`."""
        return {}

    def restore(self, files: Mapping[str, bytes]) -> None:  # noqa: B027 - as for fit
        """Restore the vocabulary from the result of `files`."""

    def save(self, folder: Path, write: Callable[[Path, bytes], object] = Path.write_bytes) -> None:
        """Write the files, and their digest last, each by `write`."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files().items():
            write(folder / name, content)
        write(folder / _DIGEST_FILE, f"{self.digest}\n".encode())

    def load(self, folder: Path, read: Callable[[Path], bytes] = Path.read_bytes) -> None:
        """Read what `save` wrote. read: opens a file. Raises TokenizerError if it is incomplete or
        changed, or can't be used."""
        try:
            files = {
                path.name: read(path)
                for path in itertools.islice(folder.iterdir(), MAX_FILES)
                if not path.name.startswith(".")
            }
            expected = files.pop(_DIGEST_FILE).decode().strip()
            self.restore(files)
        except Exception as error:  # libraries raise anything for malformed files
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise TokenizerError(f"{folder} has no complete tokenizer ({reason})") from error
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # of a library written in Rust
                raise
            raise TokenizerError(f"{folder} has no complete tokenizer ({error})") from None
        if self.digest != expected:
            raise TokenizerError(
                f"the tokenizer in {folder} was changed: "
                f"its SHA-256 is {self.digest}, not {expected}"
            )

    @property
    def digest(self) -> str:
        """SHA-256 of the class name and the files. Tokenizers with equal digests encode equally."""
        digest = hashlib.sha256(type(self).__qualname__.encode())
        for name, content in sorted(self.files().items()):
            digest.update(f"\0{name}\0{len(content)}\0".encode())
            digest.update(content)
        return digest.hexdigest()


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Raises TokenizerError, in one line that begins with `what`, for whatever a library raises: of
    one written in Rust also its panics, which are no Exception and have no public name."""
    try:
        yield
    except TokenizerError:
        raise
    except BaseException as error:
        is_panic = type(error).__name__ == "PanicException"
        if not (is_panic or isinstance(error, Exception)):
            raise
        reason = str(error) if is_panic else f"{type(error).__name__}: {error}"
        raise TokenizerError(f"{what}: {' '.join(reason.split())}") from error


def require_vocabulary(ids: Iterable[int]) -> int:
    """The size of a vocabulary that has these ids, and perhaps others below the largest. Raises
    TokenizerError if there are none, if one is negative, or if it is too large."""
    smallest, largest = 0, -1
    for id_ in ids:
        smallest, largest = min(smallest, id_), max(largest, id_)
    if smallest < 0 or not 0 <= largest < MAX_VOCABULARY:
        raise TokenizerError(
            f"a vocabulary with ids from {smallest} to {largest} can't be used: they must lie "
            f"between 0 and {MAX_VOCABULARY - 1} (MAX_VOCABULARY in zoo_tokenizers/tokenizer.py)"
        )
    return largest + 1


def smallest_unsigned(vocab_size: int) -> DTypeLike:
    """The smallest unsigned integer type for ids below vocab_size."""
    if not 1 <= vocab_size <= 2**32:
        raise TokenizerError(f"a vocabulary of {vocab_size} ids can't be stored in 32 bits")
    return np.min_scalar_type(vocab_size - 1)
