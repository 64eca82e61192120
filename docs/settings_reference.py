"""The reference of settings, made from conf/ and the classes that its files name.

A setting's meaning is the comment on its line in the YAML file, or right above it. Where a file has
none, it is that of the same setting in another file of the group, the default's first. Its type is
the annotation in the class.
"""

from __future__ import annotations

import importlib
import inspect
import re
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from docs.import_graph import ROOT, modules

CONF = ROOT / "conf"
SKIPPED = ("defaults", "hydra", "_target_")
# Of settings that the harness reads itself, beside what the optimizer's class takes.
OPTIMIZER_TYPES = {"lr_of": "dict[str, float] or null", "decay_embeddings": "bool"}
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
    """A file of conf/: what its first comment says, and its settings."""

    path: Path
    description: str
    target: str | None
    base: str | None
    """The file of the same group that it begins with."""
    settings: list[Setting]

    @property
    def name(self) -> str:
        return self.path.stem


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
        description=" ".join(line for line in header if not line.startswith("@package")),
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


def groups() -> dict[str, list[ConfigFile]]:
    """The files of each group, in the order of conf/config.yaml."""
    defaults = yaml.safe_load((CONF / "config.yaml").read_text())["defaults"]
    names = [name for entry in defaults if isinstance(entry, dict) for name in entry]
    names = [name for name in names if (CONF / name).is_dir()]
    return {name: list(map(read_file, sorted((CONF / name).glob("*.yaml")))) for name in names}


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
                found.setdefault(_within(file, setting), setting.meaning)
    return found


def _within(file: ConfigFile, setting: Setting) -> str:
    """A setting's name in its group: a logger's lie under the logger's name."""
    return setting.key.partition(".")[2] if file.path.parent.name == "logger" else setting.key


# Types


def _own_settings() -> type[BaseModel]:
    """The class of all settings, wherever in harness it lies."""
    for name, path in modules().items():
        if re.search(r"^class Settings\b", path.read_text(encoding="utf-8"), re.MULTILINE):
            found: type[BaseModel] = importlib.import_module(name).Settings
            return found
    raise LookupError("no module of harness has a class Settings")


def _types_of_settings(kind: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, hint in typing.get_type_hints(kind).items():
        if inspect.isclass(hint) and issubclass(hint, BaseModel):
            yield from _types_of_settings(hint, f"{prefix}{name}.")
        elif name in kind.model_fields:
            yield prefix + name, _words(hint)


def _types_of_class(target: str) -> dict[str, str]:
    module, _, name = target.rpartition(".")
    cls = getattr(importlib.import_module(module), name)
    return {name: _words(hint) for name, hint in typing.get_type_hints(cls.__init__).items()}


def _words(hint: Any) -> str:
    """A type in YAML's terms: null for None, and only the types that plain values have."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return " or ".join(map(str, inner))
    if origin in (typing.Union, types.UnionType):
        plain = [
            each for each in inner if not (inspect.isclass(each) and each.__module__ == "torch")
        ]
        return " or ".join(map(_words, plain))
    if origin is tuple and Ellipsis in inner:
        return f"list[{_words(inner[0])}]"
    if origin is tuple:
        return f"[{', '.join(map(_words, inner))}]"
    if origin is not None:
        return f"{origin.__name__.lower()}[{', '.join(map(_words, inner))}]"
    return "null" if hint is type(None) else getattr(hint, "__name__", str(hint))


# Markdown


def reference() -> str:
    """The whole reference, as Markdown."""
    own = dict(_types_of_settings(_own_settings()))
    config = read_file(CONF / "config.yaml")
    parts = ["## The run", _table(config, own, meanings([config]))]
    for group, files in groups().items():
        parts.append(f"## {group}")
        if group == "experiment":
            parts.append(_recipes(files))
            continue
        parts.append(_how_to_choose(group, files))
        known = meanings(files)
        for file in files:
            parts += _file(group, file, files, own, known)
    return "\n\n".join(parts)


def _how_to_choose(group: str, files: list[ConfigFile]) -> str:
    if len(files) == 1:
        return f"Set as `{group}.KEY=VALUE`."
    default = chosen().get(group)
    if group == "logger":
        return "Chosen by `logger=[local,NAME]`, set as `logger.NAME.KEY=VALUE`."
    return f"Chosen by `{group}=NAME` (default: `{default}`), set as `{group}.KEY=VALUE`."


def _file(
    group: str,
    file: ConfigFile,
    files: list[ConfigFile],
    own: Mapping[str, str],
    known: Mapping[str, str],
) -> Iterator[str]:
    if len(files) > 1:
        yield f"### {group}={file.name}"
    yield file.description
    origin = file
    while origin.target is None and origin.base is not None:
        origin = next(each for each in files if each.name == origin.base)
    if file.base is not None:
        yield f"Starts from `{group}={file.base}` and changes what is below."
    kinds = {name.removeprefix(f"{group}."): kind for name, kind in own.items()}
    if origin.target is not None:
        yield f"Class: `{origin.target}`."
        kinds = OPTIMIZER_TYPES | _types_of_class(origin.target)
    if file.settings:
        yield _table(file, kinds, known)


def _table(file: ConfigFile, kinds: Mapping[str, str], known: Mapping[str, str]) -> str:
    rows = ["| setting | default | type | meaning |", "|---|---|---|---|"]
    for setting in file.settings:
        key = _within(file, setting)
        kind = kinds.get(key) or type(setting.value).__name__
        cells = [f"`{key}`", f"`{setting.default}`", f"`{kind}`"]
        cells.append(escape(setting.meaning or known.get(key, ""), quote=False))
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _recipes(files: list[ConfigFile]) -> str:
    rows = ["| `experiment=` | what it is |", "|---|---|"]
    rows += [
        f"| `{file.name}` | {file.description.replace('|', chr(92) + '|')} |" for file in files
    ]
    return "\n".join(["A recipe sets several of the settings above at once.", "", *rows])
