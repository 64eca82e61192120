"""Paths and files are UTF-8, whatever the user's locale is."""

from __future__ import annotations

import os
import sys


def require_utf8() -> None:
    """Where the locale has another encoding, start this command again in Python's UTF-8 mode (PEP
    540): else a path with an é, of a run or of its text, could not be opened. What is printed stays
    in the locale's encoding."""
    if sys.getfilesystemencoding() == "utf-8":
        return
    os.environ["PYTHONUTF8"] = "1"  # for the processes that are started from here
    if sys.stdout is not None:
        os.environ.setdefault("PYTHONIOENCODING", sys.stdout.encoding)
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
