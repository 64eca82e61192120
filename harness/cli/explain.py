"""What Hydra, OmegaConf and argparse complain of, in one line, with the nearest valid choice."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable, Iterable, Sequence

from hydra.errors import OverrideParseException

from harness.common.values import nearest
from harness.config.keys import no_setting

Choices = Callable[[str], list[str]]
"""The names of the files in a group, none if there is no such group."""


def composition(
    error: Exception, overrides: Sequence[str], known: Callable[[], Iterable[str]]
) -> str:
    """Why a configuration can't be composed of these overrides; `known` finds the settings that
    there are among the files that they choose."""
    text = " ".join(f"{error} {error.__cause__ or ''}".split())
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override)
    if empty := [override for override in overrides if override.startswith("=")]:
        return _unreadable(empty[0])
    if several := re.search(
        r"Ambiguous value for argument '(.+?)' 1\.|Sweep parameters '(.+)'", text
    ):
        override = several[1] or several[2]
        key, _, values = override.partition("=")
        return (
            f"{override} names several values: for a sweep add -m; a text needs quotes, "
            f"{_quoted(key, values)}, and a list brackets"
        )
    if there := re.search(r"An item is already at '(.+?)'|^(\S+) appears more than once", text):
        key = there[1] or there[2]
        return f"{key} has a value already: write {key}=… without the +"
    if unknown := re.search(r"Could not (?:override|delete) '(.+?)'", text):
        return no_setting(unknown[1], known())
    if absent := re.search(r"Could not delete from config\. '(.+?)' does not exist", text):
        return no_setting(absent[1], known())
    if needed := re.search(r"Key '(.+?)' is not in struct", text):
        return f"{needed[1]} can't be left out"
    return text


def wrong_choice(override: str, choices: Choices) -> str | None:
    """What is wrong with `group=name`, if the group has no file of that name, or only one may be
    chosen."""
    key, equals, value = override.lstrip("+").partition("=")
    valid = choices(key) if re.fullmatch(r"[\w/]+", key) else []
    if not equals or not valid or "(" in value:  # a sweep's choice(…) or glob(…)
        return None
    names = [name.strip(" \"'") for name in value.strip("[]").split(",") if value != "[]"]
    for name in names:
        if name not in valid:
            hint = nearest(name, valid)
            return f"{key}={name} does not exist.{hint} Choices: {', '.join(valid)}"
    # Hydra would merge the files of `model=[gpt,bigram]` into one.
    if value.startswith("[") and key != "logger":
        return f"{key} takes one name, not a list; for a sweep: -m {key}={','.join(names)}"
    return None


def _unreadable(override: str) -> str:
    """An override that Hydra's grammar has no place for."""
    key, equals, value = override.partition("=")
    if not equals or not key:
        return f"{override!r} is no setting: write KEY=VALUE"
    return f"{override} can't be read: its value needs quotes, as in {_quoted(key, value)}"


def _quoted(key: str, value: str) -> str:
    """The override as a shell and Hydra take it for plain text."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return shlex.quote(f'{key}="{escaped}"')


def arguments(message: str, parser: argparse.ArgumentParser) -> str:
    """argparse's complaint, about options that it does not know or values that it does not take."""
    if unknown := re.fullmatch(r"unrecognized arguments: (.+)", message):
        first = unknown[1].split()[0]
        if not first.startswith("-"):
            return f"{unknown[1]}: put options such as -m before the first setting"
        options = [name for action in parser._actions for name in action.option_strings]
        return f"there is no option {first}.{nearest(first.partition('=')[0], options)}"
    choice = r"argument (\S+): invalid choice: '(.*)' \(choose from (.+)\)"
    if invalid := re.fullmatch(choice, message):
        option, value, names = invalid.groups()
        valid = names.replace("'", "").split(", ")
        return f"{option} {value} is not one of {', '.join(valid)}.{nearest(value, valid)}"
    return message
