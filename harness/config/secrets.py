"""Rejects secrets in a configuration, which is written to the run's folder and sent to loggers.

Keys and passwords belong in environment variables.
"""

from __future__ import annotations

import os
import re
from typing import Any

from harness.common.errors import UsageError
from harness.config.keys import dotted, walk

# Names that end in one of these words name a secret, as in PGPASSWORD.
_WORD = "password|passwd|pwd|secret"
_KEY = re.compile(
    rf"(?i)(?:{_WORD}|(?:^|[._-])(?:(?:api|private|secret|access)_?key|credentials?|token|pat))$"
)
_VARIABLE = re.compile(
    rf"(?i)(?:{_WORD}|(?:^|_)(?:(?:api)?key|token|pass|pat|credentials?))(?:_|$)"
)
_FOLDERS = ("PWD", "OLDPWD")  # set by every shell
_LOGIN = re.compile(r"://[^/\s@]*@")
# A parameter of a URL: ?token=…, &X-Amz-Signature=….
_PARAMETER = re.compile(
    rf"(?i)://\S*[?&;#](?:[^=&;\s]*(?:token|credentials?|signature|{_WORD})"
    r"|[^=&;\s]*(?:api|access|private|secret)key"
    r"|(?:[^=&;\s]*[._-])?(?:key|pass|pat|sig|auth))="
)
_FROM_ENVIRONMENT = re.compile(r"\boc\.env\b")
_ESCAPED = re.compile(r"(?<!\\)(?:\\\\)*\\\$\{[^}]*\}")  # \${…}: plain text
SHORTEST = 8  # characters; shorter values occur in texts by chance


def reject_override(override: str) -> None:
    """Raises UsageError for a command-line override that would write a secret, or any value of the
    environment, to the run's folder. The message never quotes it."""
    key = override.lstrip("+~").partition("=")[0].strip()
    # The text before the first = may itself be a secret, pasted by mistake.
    shown = key if re.fullmatch(r"[\w./@-]+", key) and not _leaked(key) else "an override"
    if _FROM_ENVIRONMENT.search(_ESCAPED.sub("", override)):
        raise UsageError(
            f"{shown} reads the environment: the value would be written to the run's folder; "
            "only files in conf/ may do so"
        )
    _reject_text(shown, override)
    if _KEY.search(key):
        raise _secret_key(shown)
    for value in _values(override):
        reject(value, shown)


def reject(plain: Any, key: str = "") -> None:
    """Raises UsageError, naming the setting, if plain settings contain a secret. The message never
    quotes it. key: of `plain`, in messages."""
    for path, value in walk(plain, (key,) if key else ()):
        where = dotted(path)
        if path and isinstance(path[-1], str):
            _reject_text(dotted(path[:-1]) or key or "the configuration", path[-1])
            if _KEY.search(where) and value is not None:
                raise _secret_key(where)
        if isinstance(value, str):
            _reject_text(where, value)


def _values(override: str) -> list[Any]:
    """The value of an override, or the choices of a sweep; empty if it can't be parsed, which the
    loader reports."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import ChoiceSweep, Override
    from hydra.errors import HydraException

    try:
        value = OverridesParser.create().parse_override(override).value()
    except HydraException:
        return []
    if not isinstance(value, ChoiceSweep):
        return [value]
    return [Override._convert_value(choice) for choice in value.list]


def _reject_text(key: str, text: str) -> None:
    if variable := _leaked(text):
        raise UsageError(
            f"{key} contains the value of the environment variable {variable}: it would be "
            "written to the run's folder"
        )
    if _LOGIN.search(text) or _PARAMETER.search(text):
        raise UsageError(
            f"{key} contains a URL with a login or a key: it would be written to the run's folder"
        )


def _secret_key(key: str) -> UsageError:
    return UsageError(
        f"{key}: a secret must not be part of the configuration, which is written to the run's "
        "folder; set an environment variable"
    )


def _leaked(text: str) -> str | None:
    """The environment variable with a secret's name whose value occurs in `text`."""
    for name, value in os.environ.items():
        is_secret = _VARIABLE.search(name) and name not in _FOLDERS
        if len(value) >= SHORTEST and value in text and is_secret:
            return name
    return None
