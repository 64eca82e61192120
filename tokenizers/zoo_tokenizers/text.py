"""Where text can be cut, and what in it a library can't be given."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import numpy as np

from zoo_tokenizers.tokenizer import Ids, NotUnicode

STRAY_BYTES = "\udc80-\udcff"  # bytes that are not UTF-8, as `surrogateescape` shows them
_WORD_START = re.compile(r"(?<=\S)(?= )|(?<=\S\n)(?=[^\s/])")


def is_unicode(text: str) -> bool:
    """Whether all of it is characters, none a stray byte: what a library can be given."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def require_unicode(text: str, offset: int = 0) -> None:
    """Raises NotUnicode for the first byte that is no UTF-8. offset: of the text, in bytes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        before = text[: error.start].encode("utf-8", "surrogateescape")
        raise NotUnicode(ord(text[error.start]) & 0xFF, offset + len(before)) from None


def last_word_start(text: str) -> int:
    """The last place inside the text where the pre-tokenizers of the GPT family always cut, and
    what they do on either side does not depend on the other; 0 if there is none.

    Two kinds of place. Before a space that follows anything but white space: of the alternatives of
    the patterns of r50k, p50k, cl100k and o200k none matches white space after something else, save
    line breaks (and "/") after punctuation; and the look-aheads (`\\s+(?!\\S)`, `\\s+$`) are about
    runs of white space, which begin at this place. After a single line break that something else
    precedes and follows: a line break is never joined to what follows it (but "/", in o200k), and
    by itself it is one match, at the end of a text or not. BERT's splits at white space everywhere.
    """
    for place in range(len(text) - 1, 0, -1):
        if _WORD_START.match(text, place):
            return place
    return 0


def encode_apart(
    text: str, apart: str, encode: Callable[[str], Ids], spell: Callable[[bytes], Ids]
) -> Ids:
    """Encode the runs of text between the characters of `apart` (a regular expression's set), and
    spell those characters byte by byte."""
    return np.concatenate(
        [
            spell(run.encode("utf-8", "surrogateescape")) if is_apart else encode(run)
            for run, is_apart in _runs(text, apart)
        ]
    )


def _runs(text: str, apart: str) -> Iterator[tuple[str, bool]]:
    for place, run in enumerate(re.split(f"([{apart}]+)", text)):
        yield run, place % 2 == 1
