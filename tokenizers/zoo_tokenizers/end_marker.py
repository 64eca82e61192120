"""The marker at the end of a document, as a token of its own."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from zoo_tokenizers.tokenizer import (
    AssetFinder,
    Ids,
    NotUnicode,
    Tokenizer,
    TokenizerError,
    WholeTexts,
)


def in_document(error: NotUnicode, document: str) -> TokenizerError:
    """The error with the document that has the byte: where that lies in a file is not known."""
    return TokenizerError(
        f"byte 0x{error.byte:02x} of the document {document!r:.80} is not UTF-8; use "
        "tokenizer=bytes"
    )


class EndMarker(Tokenizer):
    """A tokenizer and one more id, the last, that stands for no bytes.

    No text becomes it, whatever it contains: `encode` is the tokenizer's own. Documents are encoded
    one by one, and the marker goes between their ids. It is decoded to nothing.
    """

    def __init__(self, of_text: Tokenizer) -> None:
        self._of_text = of_text
        self._adopt()

    def _adopt(self) -> None:
        """What the tokenizer is, now that it has a vocabulary."""
        own = self._of_text
        self.lossless, self.leaks, self.marker = own.lossless, own.leaks, own.vocab_size
        self.pieces, self.of_ids = (*own.pieces, b""), own.of_ids
        kind = f"{type(own).__module__}.{type(own).__qualname__}"
        self.recipe = None if own.recipe is None else f"{kind} {own.recipe} of documents"

    @property
    def of_text(self) -> Tokenizer:
        return self._of_text

    @property
    def token_bytes(self) -> NDArray[np.int64]:
        return np.append(self._of_text.token_bytes, 0)

    def encode(self, text: str) -> Ids:
        return self._of_text.encode(text)

    def encode_known(self, text: str) -> tuple[Ids, Counter[str]]:
        return self._of_text.encode_known(text)

    def decode(self, ids: Sequence[int] | NDArray[np.integer]) -> str:
        ids = np.asarray(ids, dtype=np.int64)
        documents = np.split(ids, np.flatnonzero(ids == self.marker))
        return "".join(self._of_text.decode(each[each != self.marker]) for each in documents)

    def last_safe_cut(self, text: str) -> int:
        return self._of_text.last_safe_cut(text)

    def notes(self) -> list[str]:
        return self._of_text.notes()

    def fetch(self, assets: AssetFinder) -> None:
        self._of_text.fetch(assets)
        self._adopt()

    def fit(self, train: Iterable[str]) -> None:
        document = ""

        def documents() -> Iterator[str]:
            nonlocal document
            for document in train:  # noqa: UP028 - an error names the last one
                yield document

        try:
            self._of_text.fit(WholeTexts(documents()))
        except NotUnicode as error:
            raise in_document(error, document) from error
        self._adopt()

    def files(self) -> dict[str, bytes]:
        return self._of_text.files()

    def restore(self, files: Mapping[str, bytes]) -> None:
        self._of_text.restore(files)
        self._adopt()

    @property
    def digest(self) -> str:
        return hashlib.sha256(f"end marker {self._of_text.digest}".encode()).hexdigest()
