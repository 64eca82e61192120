"""samples.txt: the sampled text, a block for each evaluation.

    === step 250 ===
    First Citizen:
    \\=== this line was sampled without the backslash

A block ends with a line break and an empty line. A line of text that begins with "=", or with
backslashes and then "=", is escaped by one more backslash: no text can pose as a heading.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from harness.common import contained
from harness.common.errors import RunFailure
from harness.common.files import AppendedFile, atomic_write

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


def read(path: Path, last_bytes: int = contained.LIMITS[FILE]) -> list[Sample]:
    """The blocks that are whole in the last bytes of the file; none if it can't be read.
    A heading that a kill tore is left out."""
    return _parse(contained.read_tail(path, last_bytes))


def keep_before(path: Path, step: int) -> None:
    """Drop the blocks that a resumed run writes again. Raises RunFailure if that can't be done."""
    try:
        found = _parse(contained.read(path))
    except FileNotFoundError:
        return
    except OSError as error:
        raise RunFailure(f"{path} can't be read: {error.strerror}") from error
    with atomic_write(path) as file:
        file.write(b"".join(_block(sample) for sample in found if sample.step < step))


def _parse(content: bytes) -> list[Sample]:
    text = content.decode("utf-8", "surrogateescape")
    _, *parts = _HEADING.split(_TORN_HEADING.sub("", text))
    return [
        Sample(int(step), _ESCAPED.sub("", escaped.removesuffix(_END)))
        for step, escaped in zip(parts[::2], parts[1::2], strict=True)
    ]


def _block(sample: Sample) -> bytes:
    escaped = _TO_ESCAPE.sub(r"\\", sample.text)
    return f"=== step {sample.step} ===\n{escaped}{_END}".encode("utf-8", "surrogateescape")
