"""samples.txt: the sampled text, a block for each evaluation.

    === step 250 ===
    First Citizen:
    \\=== this line was sampled without the backslash

A block ends with a line break and an empty line. A line of text that begins with "=", or with
backslashes and then "=", is escaped by one more backslash: no text can pose as a heading.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import NamedTuple

from harness.common.files import AppendedFile, atomic_write, read_tail

FILE = "samples.txt"
# Not `$` and `\s`: a line ends with a line feed and nothing else.
_HEADING = re.compile(r"^=== step (\d{1,15}) ===\n", re.MULTILINE)
_TORN_HEADING = re.compile(r"^=[^\n]*\Z", re.MULTILINE)
_TO_ESCAPE = re.compile(r"^(?=\\*=)", re.MULTILINE)
_ESCAPED = re.compile(r"^\\(?=\\*=)", re.MULTILINE)
_END = "\n\n"


class Sample(NamedTuple):
    """step: of the weights. text: with bytes that are not UTF-8 as lone surrogates (Python's
    `surrogateescape`)."""

    step: int
    text: str


def append(path: Path, sample: Sample) -> None:
    """Add a block. Raises RunFailure if the file can't be written."""
    file = AppendedFile(path)
    try:
        file.append(_block(sample))
    finally:
        file.close()


def read(path: Path, last_bytes: int = sys.maxsize) -> list[Sample]:
    """All blocks, or those that are whole in the last bytes of the file; none if there is no file.
    A heading that a kill tore is left out."""
    text = read_tail(path, last_bytes).decode("utf-8", "surrogateescape")
    _, *parts = _HEADING.split(_TORN_HEADING.sub("", text))
    return [
        Sample(int(step), _ESCAPED.sub("", escaped.removesuffix(_END)))
        for step, escaped in zip(parts[::2], parts[1::2], strict=True)
    ]


def keep_before(path: Path, step: int) -> None:
    """Drop the blocks that a resumed run writes again."""
    if path.exists():
        kept = [_block(sample) for sample in read(path) if sample.step < step]
        with atomic_write(path) as file:
            file.write(b"".join(kept))


def _block(sample: Sample) -> bytes:
    escaped = _TO_ESCAPE.sub(r"\\", sample.text)
    return f"=== step {sample.step} ===\n{escaped}{_END}".encode("utf-8", "surrogateescape")
