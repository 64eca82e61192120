"""Safe places to cut text, and bytes that are not UTF-8."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from zoo_tokenizers.tokenizer import Ids, NotUnicode

STRAY_BYTES = "\udc80-\udcff"  # bytes that are not UTF-8, by `surrogateescape`
_WORD_START = re.compile(r"(?<=\S)(?= )|(?<=\S\n)(?=[^\s/])")


def is_unicode(text: str) -> bool:
    """Whether the text has no stray bytes, so that a library can encode it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def require_unicode(text: str, offset: int = 0) -> None:
    """Raises NotUnicode for the first stray byte. offset: of the text in its file, in bytes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        before = text[: error.start].encode("utf-8", "surrogateescape")
        raise NotUnicode(ord(text[error.start]) & 0xFF, offset + len(before)) from None


def last_word_start(text: str) -> int:
    """The last position where the pre-tokenizers of the GPT family always cut, and where the two
    sides do not influence each other; 0 if there is none.

    Two kinds of position. (1) Before a space that follows a non-space. In the patterns of r50k,
    p50k, cl100k and o200k no alternative matches white space after other characters, except line
    breaks (and "/") after punctuation. The look-aheads (`\\s+(?!\\S)`, `\\s+$`) apply to runs of
    white space, which start here. (2) After a single line break between non-spaces. A line break is
    never joined to what follows it (except "/", in o200k), and alone it is one match, at the end of
    a text or not. BERT's pre-tokenizer splits at all white space.
    """
    for place in range(len(text) - 1, 0, -1):
        if _WORD_START.match(text, place):
            return place
    return 0


def encode_with_bytes(
    text: str, encode: Callable[[str], Ids], byte_ids: Ids, characters: str = STRAY_BYTES
) -> Ids:
    """Encode the text, but some characters byte by byte.

    byte_ids (256,): the id of each byte. characters: which ones, as in a regular expression's [].
    """
    runs: list[Ids] = []
    for number, run in enumerate(re.split(f"([{characters}]+)", text)):
        if number % 2:
            spelt = np.frombuffer(run.encode("utf-8", "surrogateescape"), dtype=np.uint8)
            runs.append(byte_ids[spelt])
        else:
            runs.append(encode(run))
    return np.concatenate(runs)
