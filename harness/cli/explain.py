"""Errors of Hydra, OmegaConf and argparse as one line with the nearest valid name."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable, Iterable, Sequence

from hydra.errors import OverrideParseException

from harness.common.values import did_you_mean
from harness.config.keys import no_setting


def composition_error(
    error: Exception, overrides: Sequence[str], known: Callable[[], Iterable[str]]
) -> str:
    """Why Hydra can't compose these overrides. known: finds the keys of the chosen files."""
    text = " ".join(f"{error} {error.__cause__ or ''}".split())
    if isinstance(error, OverrideParseException):
        return _unparsable(error.override)
    if empty := [override for override in overrides if override.startswith("=")]:
        return _unparsable(empty[0])
    if sweep := re.search(
        r"Ambiguous value for argument '(.+?)' 1\.|Sweep parameters '(.+)'", text
    ):
        override = sweep[1] or sweep[2]
        key, _, values = override.partition("=")
        return (
            f"{override} has several values: for a sweep add -m; text needs quotes, "
            f"{_quoted(key, values)}, and a list needs brackets"
        )
    if duplicate := re.search(r"An item is already at '(.+?)'|^(\S+) appears more than once", text):
        key = duplicate[1] or duplicate[2]
        return f"{key} has a value already: write {key}=… without the +"
    if unknown := re.search(
        r"Could not (?:override|delete) '(.+?)'|Could not delete from config\. '(.+?)' does", text
    ):
        return no_setting(unknown[1] or unknown[2], known())
    if required := re.search(r"Key '(.+?)' is not in struct", text):
        return f"{required[1]} can't be deleted"
    return text


def wrong_choice(override: str, choices: Callable[[str], list[str]]) -> str | None:
    """The error in `group=name` if the group has no such file or takes only one name.

    choices: gives the names of the files in a group; none for an unknown group.
    """
    key, equals, value = override.lstrip("+").partition("=")
    valid = choices(key) if re.fullmatch(r"[\w/]+", key) else []
    if not equals or not valid or "(" in value:  # a sweep's choice(…) or glob(…)
        return None
    names = [name.strip(" \"'") for name in value.strip("[]").split(",") if value != "[]"]
    for name in names:
        if name not in valid:
            hint = did_you_mean(name, valid)
            return f"{key}={name} does not exist.{hint} Choices: {', '.join(valid)}"
    # Hydra would merge the files of `model=[gpt,bigram]` into one.
    if value.startswith("[") and key != "logger":
        return f"{key} takes one name, not a list; for a sweep: -m {key}={','.join(names)}"
    return None


def _unparsable(override: str) -> str:
    """The error for an override that Hydra's grammar can't parse."""
    key, equals, value = override.partition("=")
    if not equals or not key:
        return f"{override!r} is not a setting: write KEY=VALUE"
    return f"{override} can't be parsed: its value needs quotes, as in {_quoted(key, value)}"


def _quoted(key: str, value: str) -> str:
    """The override with its value as text, quoted for Hydra and the shell."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return shlex.quote(f'{key}="{escaped}"')


def option_error(message: str, parser: argparse.ArgumentParser) -> str:
    """argparse's message about an unknown option or an invalid value, with the nearest name."""
    if unknown := re.fullmatch(r"unrecognized arguments: (.+)", message):
        first = unknown[1].split()[0]
        if not first.startswith("-"):
            return f"{unknown[1]}: put options such as -m before the first setting"
        options = [name for action in parser._actions for name in action.option_strings]
        return f"there is no option {first}.{did_you_mean(first.partition('=')[0], options)}"
    choice = r"argument (\S+): invalid choice: '(.*)' \(choose from (.+)\)"
    if invalid := re.fullmatch(choice, message):
        option, value, names = invalid.groups()
        valid = names.replace("'", "").split(", ")
        return f"{option} {value} is not one of {', '.join(valid)}.{did_you_mean(value, valid)}"
    return message
