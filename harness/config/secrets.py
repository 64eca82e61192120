"""No secret in a configuration: all of it is written into the run's folder, and loggers send it on.

Keys and passwords belong into the environment, where the libraries that need them look.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from harness.common.errors import UsageError

# Words that name a secret wherever they end a name, as in PGPASSWORD.
_WORD = "password|passwd|pwd|secret"
_KEY = re.compile(
    rf"(?i)(?:{_WORD}|(?:^|[._-])(?:(?:api|private|secret|access)_?key|credentials?|token|pat))$"
)
_VARIABLE = re.compile(
    rf"(?i)(?:{_WORD}|(?:^|_)(?:(?:api)?key|token|pass|pat|credentials?))(?:_|$)"
)
_FOLDERS = ("PWD", "OLDPWD")  # which every shell sets
_LOGIN = re.compile(r"://[^/\s@]*@")
# A parameter of an address: ?token=…, &X-Amz-Signature=….
_PARAMETER = re.compile(
    rf"(?i)://\S*[?&;#](?:[^=&;\s]*(?:token|credentials?|signature|{_WORD})"
    r"|[^=&;\s]*(?:api|access|private|secret)key"
    r"|(?:[^=&;\s]*[._-])?(?:key|pass|pat|sig|auth))="
)
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
    for value in _values(override):
        require_none(value, shown)


def require_none(value: Any, key: str = "") -> None:
    """Raises UsageError naming the setting that is, or holds, a secret. It never quotes it."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _refuse(key or "the configuration", str(name))
            where = f"{key}.{name}" if key else str(name)
            if _KEY.search(where) and inner is not None:
                raise UsageError(_named(where))
            require_none(inner, where)
    elif isinstance(value, list):
        for inner in value:
            require_none(inner, key)
    elif isinstance(value, str):
        _refuse(key, value)


def _values(override: str) -> list[Any]:
    """What an override sets: in a sweep, each of its choices. None for what can't be read, which is
    never composed either."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import ChoiceSweep, Override
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException:
        return []
    value = parsed.value()
    if not isinstance(value, ChoiceSweep):
        return [value]
    return [Override._convert_value(choice) for choice in value.list]


def _refuse(key: str, text: str) -> None:
    if variable := _holder(text):
        raise UsageError(
            f"{key} holds the value of the environment's {variable}: it would be written into the "
            "run's folder"
        )
    if _LOGIN.search(text) or _PARAMETER.search(text):
        raise UsageError(
            f"{key} holds an address with a login or a key: it would be written into the run's "
            "folder"
        )


def _named(key: str) -> str:
    return (
        f"{key}: no secret belongs into a configuration, which is written into the run's folder; "
        "set a variable of the environment"
    )


def _holder(text: str) -> str | None:
    """The variable of the environment that is called like a secret and whose value is in `text`."""
    for name, value in os.environ.items():
        is_secret = _VARIABLE.search(name) and name not in _FOLDERS
        if len(value) >= SHORTEST and value in text and is_secret:
            return name
    return None
