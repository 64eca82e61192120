"""Text as a terminal takes it."""

from __future__ import annotations


def printable(text: str) -> str:
    """Bytes that are no UTF-8 shown as �, so that any terminal takes it."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
