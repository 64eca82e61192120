"""Settings as a user can type them: what a message suggests, Hydra and the shell understand."""

from __future__ import annotations

import re
import shlex
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException


def typed(key: str, text: str) -> str:
    """`key=text` for a shell, in quotes where it needs them."""
    return shlex.quote(override(key, text))


def override(key: str, text: str) -> str:
    """`key=text` as Hydra's grammar wants it."""
    from hydra.core.override_parser.types import Quote, QuotedString

    plain = f"{key}={text}"
    if re.fullmatch(r"[\w./-]+", text, re.ASCII) and meaning(plain) == text:
        return plain
    # What begins like an interpolation is text, too.
    escaped = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    return f"{key}={QuotedString(escaped, Quote.double).with_quotes()}"


def has_several(override: str) -> bool:
    """Whether it is a sweep's: `seed=0,1`, `seed=range(3)`."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return bool(OverridesParser.create().parse_override(override).is_sweep_override())
    except HydraException:
        return False


def meaning(override: str) -> Any:
    """The value that an override gives; None if it can't be parsed."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        value = OverridesParser.create().parse_override(override).value()
        plain: Any = OmegaConf.to_container(OmegaConf.create([value]), resolve=True)
        return plain[0]
    except (HydraException, OmegaConfBaseException):
        return None
