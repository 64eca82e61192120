"""Text for a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with bytes that are not UTF-8 shown as �."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
