"""Three corpora that a mix is made of."""

from __future__ import annotations

import itertools
from pathlib import Path

# No byte of one is in another, and every byte of a text says where it is.
TEXTS = {
    "low": bytes(range(32, 64)) * 40,
    "high": "".join(map(chr, range(0x3B1, 0x3C9))).encode() * 90,
    "few": bytes(range(97, 123)) * 12,
}
WEIGHTS = {"low": 0.15, "high": 0.6, "few": 0.25}


def files(folder: Path) -> dict[str, str]:
    for name, content in TEXTS.items():
        (folder / f"{name}.txt").write_bytes(content)
    return {name: str(folder / f"{name}.txt") for name in TEXTS}


def cuts_of(content: bytes) -> list[bytes]:
    """Train, validation and test by a rule of our own: of characters of equal length."""
    width = len(content.decode()[0].encode())
    cuts = [0, *(width * int(share * len(content) / width) for share in (0.8, 0.9)), len(content)]
    return [content[start:stop] for start, stop in itertools.pairwise(cuts)]
