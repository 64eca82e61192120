"""Errors of Hydra, OmegaConf and argparse as one line with the nearest valid name."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable, Iterable, Sequence

from hydra.errors import OverrideParseException

from harness.common.values import did_you_mean
from harness.config.keys import names_in_group, no_setting
from harness.config.spelling import meaning, typed

# Hydra's plugins, by the names of their files, and the package that brings each.
LAUNCHERS = {
    "joblib": "hydra-joblib-launcher",
    "ray": "hydra-ray-launcher",
    "ray_aws": "hydra-ray-launcher",
    "rq": "hydra-rq-launcher",
    "submitit_local": "hydra-submitit-launcher",
    "submitit_slurm": "hydra-submitit-launcher",
}
SWEEPERS = {
    "ax": "hydra-ax-sweeper",
    "nevergrad": "hydra-nevergrad-sweeper",
    "optuna": "hydra-optuna-sweeper",
}
NO_OTHER_SWEEPER = (
    "sweepers of others are not supported: a sweep is checked before its first job, for which all "
    "jobs must be known; for a search: python -m harness.search, or W&B's (sweeps/)"
)


def composition_error(
    error: Exception,
    overrides: Sequence[str],
    known: Callable[[], Iterable[str]],
    *,
    sweeps: bool,
) -> str:
    """Why Hydra can't compose these overrides. known: finds the keys of the chosen files. sweeps:
    whether the command takes -m."""
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
        way = "for a sweep add -m" if sweeps else "this command takes one value"
        if names_in_group(key):
            return f"{override} has several values: {way}"
        return (
            f"{override} has several values: {way}; text needs quotes"
            f"{_suggested(', ', key, values)}, and a list needs brackets"
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


def wrong_choice(override: str, choices: Callable[[str], list[str]], *, sweeps: bool) -> str | None:
    """The error in `group=name` if the group has no such file or takes only one name.

    choices: gives the names of the files in a group; none for an unknown group. sweeps: whether
    the command takes -m.
    """
    key, equals, value = override.lstrip("+").partition("=")
    valid = choices(key) if re.fullmatch(r"[\w/]+", key) else []
    if not equals or not valid or "(" in value:  # a sweep's choice(…) or glob(…)
        return None
    for chosen in alternatives(value):
        names = [name.strip(" \"'") for name in chosen.strip("[]").split(",") if chosen != "[]"]
        for name in names:
            if name not in valid:
                return _no_choice(key, name, valid)
        # Hydra would merge the files of `model=[gpt,bigram]` into one.
        if chosen.startswith("[") and key != "logger":
            way = f"; for a sweep: -m {key}={','.join(names)}" if sweeps else ""
            return f"{key} takes one name, not a list{way}"
    return None


def alternatives(value: str) -> list[str]:
    """The values of a sweep, of which each may be a list: `[local],[local,wandb]` has two."""
    return re.findall(r"\[[^]]*\]?|[^,\[]+", value) or [value]


def _no_choice(key: str, name: str, valid: list[str]) -> str:
    if key == "hydra/launcher" and name in LAUNCHERS:
        return f"{key}={name} is not installed: pip install {LAUNCHERS[name]}"
    if key == "hydra/sweeper" and name in SWEEPERS:
        return f"{key}={name} is of the package {SWEEPERS[name]}; {NO_OTHER_SWEEPER}"
    return f"{key}={name} does not exist.{did_you_mean(name, valid)} Choices: {', '.join(valid)}"


def _unparsable(override: str) -> str:
    """The error for an override that Hydra's grammar can't parse."""
    key, equals, value = override.partition("=")
    if not equals or not key:
        return f"{override!r} is not a setting: write KEY=VALUE"
    bare = f"{key.strip()}={value.strip()}"
    if bare != override and meaning(bare) is not None:
        return f"{override!r} can't be parsed: write {bare}, without blanks"
    return f"{override} can't be parsed: its value needs quotes{_suggested(', as in ', key, value)}"


def _suggested(words: str, key: str, value: str) -> str:
    """The override with its value as text, for the shell; nothing if even that can't be parsed."""
    line = typed(key, value)
    return f"{words}{line}" if [meaning(each) for each in shlex.split(line)] == [value] else ""


def option_error(
    message: str, parser: argparse.ArgumentParser, settings: Callable[[], Iterable[str]]
) -> str:
    """argparse's message about an unknown option or an invalid value, with the nearest name.

    settings: the keys of a command that takes settings, which some type like options.
    """
    if unknown := re.fullmatch(r"unrecognized arguments: (.+)", message):
        first = unknown[1].split()[0]
        if not first.startswith("-"):
            return f"{unknown[1]}: put options such as -m before the first setting"
        key, equals, value = first.lstrip("-").partition("=")
        if first.startswith("--") and key in settings():
            bare = f"{key}={value}"
            line = typed(key, value) if meaning(bare) is None else shlex.quote(bare)
            shown = line if equals else f"{key}=…"
            return f"there is no option {first}: a setting has no dashes, {shown}"
        options = [name for action in parser._actions for name in action.option_strings]
        return f"there is no option {first}.{did_you_mean(first.partition('=')[0], options)}"
    choice = r"argument (\S+): invalid choice: '(.*)' \(choose from (.+)\)"
    if invalid := re.fullmatch(choice, message):
        option, value, names = invalid.groups()
        valid = names.replace("'", "").split(", ")
        return f"{option} {value} is not one of {', '.join(valid)}.{did_you_mean(value, valid)}"
    return message
