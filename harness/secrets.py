"""No secret in a configuration: all of it is written into the run's folder, and loggers send it on.

Keys and passwords belong into the environment, where the libraries that need them look.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from harness.errors import UsageError

_KEY = re.compile(
    r"(?i)(?:^|[._-])(?:api_?key|private_key|secret(?:_key)?|password|passwd|credentials?|token)$"
)
_VARIABLE = re.compile(
    r"(?i)(?:^|_)(?:API)?(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(?:_|$)"
)
_LOGIN = re.compile(r"://[^/\s@]*:[^/\s@]*@")
_FROM_ENVIRONMENT = re.compile(r"\boc\.env\b")
_ESCAPED = re.compile(r"(?<!\\)(?:\\\\)*\\\$\{[^}]*\}")  # \${…}: plain text
SHORTEST = 8  # characters; what is shorter occurs in texts by chance


def require_none_typed(override: str) -> None:
    """Raises UsageError for an override of the command line that would write a secret into the
    run's folder, or any value of the environment. It never quotes it."""
    key = override.lstrip("+~").partition("=")[0].strip()
    # The key that is shown is the text up to the first =, which may itself be a slip of the paste.
    shown = key if re.fullmatch(r"[\w./@-]+", key) and _holder(key) is None else "an override"
    if _FROM_ENVIRONMENT.search(_ESCAPED.sub("", override)):
        raise UsageError(
            f"{shown} reads the environment: the value would be written into the run's folder; "
            "only files in conf/ may do so"
        )
    _refuse(shown, override)
    if _KEY.search(key):
        raise UsageError(_named(shown))


def require_none(value: Any, key: str = "") -> None:
    """Raises UsageError naming the setting that is, or holds, a secret. It never quotes it."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            where = f"{key}.{name}" if key else str(name)
            if _KEY.search(where) and inner is not None:
                raise UsageError(_named(where))
            require_none(inner, where)
    elif isinstance(value, list):
        for inner in value:
            require_none(inner, key)
    elif isinstance(value, str):
        _refuse(key, value)


def _refuse(key: str, text: str) -> None:
    if variable := _holder(text):
        raise UsageError(
            f"{key} holds the value of the environment's {variable}: it would be written into the "
            "run's folder"
        )
    if _LOGIN.search(text):
        raise UsageError(
            f"{key} holds an address with a password: it would be written into the run's folder"
        )


def _named(key: str) -> str:
    return (
        f"{key}: no secret belongs into a configuration, which is written into the run's folder; "
        "set a variable of the environment"
    )


def _holder(text: str) -> str | None:
    """The variable of the environment that is called like a secret and whose value is in `text`."""
    for name, value in os.environ.items():
        if len(value) >= SHORTEST and value in text and _VARIABLE.search(name):
            return name
    return None
