"""Short names of run folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path


def run_names(folders: Iterable[Path]) -> dict[Path, str]:
    """For each folder the shortest end of its path that no other one has."""
    parts = {folder: folder.resolve().parts for folder in folders}
    names: dict[Path, str] = {}
    length = 0
    while len(names) < len(parts):
        length += 1
        ends = Counter(own[-length:] for own in parts.values())
        for folder, own in parts.items():
            if folder not in names and (ends[own[-length:]] == 1 or length >= len(own)):
                names[folder] = "/".join(own[-length:])
    return names
