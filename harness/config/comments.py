"""What the comments of conf/ say: the one place where choices and settings are described.

A setting's meaning is the comment on its line in the YAML file, or right above it. Where a file has
none, it is that of the same setting in another file of the group, the default's first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness.common.paths import CONF

SKIPPED = ("defaults", "hydra", "_target_")
COMMENT = re.compile(r"\s*#\s?(.*)")


@dataclass(frozen=True)
class Setting:
    """key: dotted, within its file. default: as the file writes it."""

    key: str
    default: str
    meaning: str
    value: Any


@dataclass(frozen=True)
class ConfigFile:
    """A file of conf/: its first comment, of which the first line says what it is, and settings."""

    path: Path
    comment: tuple[str, ...]
    target: str | None
    base: str | None
    """The file of the same group that it begins with."""
    settings: list[Setting]

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def description(self) -> str:
        """The whole comment, without command lines."""
        return " ".join(line for line in self.comment if "python -m" not in line)


def read_file(path: Path) -> ConfigFile:
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    root = yaml.compose(text)
    assert root is not None, f"{path} is empty"
    header = _comments_above(lines, root.start_mark.line)
    plain = yaml.safe_load(text)
    defaults = plain.get("defaults") or []
    bases = [name for name in defaults if isinstance(name, str) and name != "_self_"]
    if path.parent.name == "logger":  # a logger's settings lie under its name
        ((_, plain),) = plain.items()
    return ConfigFile(
        path=path,
        comment=tuple(line for line in header if not line.startswith("@package")),
        target=plain.get("_target_"),
        base=bases[0] if bases else None,
        settings=list(_settings(root, text, lines)),
    )


def _settings(node: Any, text: str, lines: list[str], prefix: str = "") -> Iterator[Setting]:
    for position, (key, value) in enumerate(node.value):
        if key.value in SKIPPED:
            continue
        first = position == 0 and not prefix
        above = [] if first else _comments_above(lines, key.start_mark.line)
        if isinstance(value, yaml.MappingNode) and not value.flow_style:
            yield from _settings(value, text, lines, f"{prefix}{key.value}.")
            continue
        default = text[value.start_mark.index : value.end_mark.index].strip()
        beside = COMMENT.fullmatch(lines[value.end_mark.line][value.end_mark.column :])
        meaning = beside[1] if beside else " ".join(above)
        yield Setting(prefix + key.value, default, meaning, yaml.safe_load(default or "null"))


def _comments_above(lines: list[str], line: int) -> list[str]:
    """The comment lines that end right above a line."""
    found: list[str] = []
    while line > 0 and (match := COMMENT.fullmatch(lines[line - 1])):
        found.insert(0, match[1].strip())
        line -= 1
    return found


def group_names() -> list[str]:
    """In the order of conf/config.yaml."""
    defaults = yaml.safe_load((CONF / "config.yaml").read_text())["defaults"]
    names = [name for entry in defaults if isinstance(entry, dict) for name in entry]
    return [name for name in names if (CONF / name).is_dir()]


def groups() -> dict[str, list[ConfigFile]]:
    """The files of each group."""
    return {
        name: list(map(read_file, sorted((CONF / name).glob("*.yaml")))) for name in group_names()
    }


def summaries(group: str) -> dict[str, str]:
    """One line about each file of a group: the first of its comment."""
    found = {}
    for path in sorted((CONF / group).glob("*.yaml")):
        lines = path.read_text(encoding="utf-8").splitlines()
        found[path.stem] = next(line for line in lines if "@package" not in line).lstrip("# ")
    return found


def chosen() -> dict[str, str]:
    """The file of each group that is used unless another is named."""
    defaults = yaml.safe_load((CONF / "config.yaml").read_text())["defaults"]
    return {
        name: choice
        for entry in defaults
        if isinstance(entry, dict)
        for name, choice in entry.items()
        if isinstance(choice, str)
    }


def meanings(files: list[ConfigFile]) -> dict[str, str]:
    """What each setting of a group means: by the default's file, or by the first that says it."""
    found: dict[str, str] = {}
    default = chosen().get(files[0].path.parent.name)
    for file in sorted(files, key=lambda file: file.name != default):
        for setting in file.settings:
            if setting.meaning:
                found.setdefault(name_in_group(file, setting), setting.meaning)
    return found


def meanings_in(group: str, name: str | None) -> dict[str, str]:
    """What each setting of one file of a group means: the file's own comments count first."""
    files = [read_file(path) for path in sorted((CONF / group).glob("*.yaml"))]
    known = meanings(files)
    for file in files:
        if file.name == name:
            known |= {s.key: s.meaning for s in file.settings if s.meaning}
    return known


def name_in_group(file: ConfigFile, setting: Setting) -> str:
    """A setting's name in its group: a logger's lie under the logger's name."""
    return setting.key.partition(".")[2] if file.path.parent.name == "logger" else setting.key
