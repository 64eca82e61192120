"""Finds the folders of runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from harness.runs import metrics, summary


def run_folders(top: Path, say: Callable[[str], object] = lambda line: None) -> Iterator[Path]:
    """The folders at any depth below `top`, itself included, that hold a run. say: gets a line for
    each folder that is passed over."""
    return (folder for folder in walk(top, say) if folder is not None)


def walk(top: Path, say: Callable[[str], object] = lambda line: None) -> Iterator[Path | None]:
    """As `run_folders`, with None for each folder that holds no run.

    A link to a run is followed. One to another folder is not: it could lead to anything, even to
    where it lies itself.
    """

    def unreadable(error: OSError) -> None:
        say(f"{error.filename} can't be read: {error.strerror}; runs in it are left out")

    for folder, subfolders, files in os.walk(top, onerror=unreadable):
        # A run without a summary must be listed, too.
        found = summary.FILE in files or metrics.FILE in files
        yield Path(folder) if found else None
        if found:
            subfolders.clear()
        for name in subfolders:
            link = Path(folder, name)
            if not link.is_symlink():
                continue
            if any(os.path.lexists(link / file) for file in (summary.FILE, metrics.FILE)):
                yield link
            else:
                say(f"{link} is a link to a folder that is no run, and is not followed")
