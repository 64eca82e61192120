"""Marks a record as made by this user on this machine: no edited or foreign one passes for it.

The key lies in the user's state folder. It never enters a run's folder.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from contextlib import suppress
from pathlib import Path

from harness.common.errors import RunFailure, UsageError
from harness.common.files import create_private
from harness.common.paths import user_state

NAME = "language-model-zoo/certificate-key"
BYTES = 32


def seal(text: str) -> str | None:
    """HMAC-SHA256 of a text under the user's key, which is made the first time. None if there is
    no place for a key: then nothing is known to be one's own."""
    with suppress(OSError, RunFailure, UsageError):
        path = key_path()
        if not path.exists():
            create_private(path, secrets.token_bytes(BYTES))
        key = path.read_bytes()
        if len(key) == BYTES:
            return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    return None


def is_sealed(text: str, found: str | None) -> bool:
    """Whether this is the text's seal."""
    if found is None:
        return False  # without making a key
    own = seal(text)
    return own is not None and hmac.compare_digest(own, found)


def key_path() -> Path:
    """Raises UsageError where no home is known."""
    return user_state() / NAME
