"""The reference of settings, made from conf/ and the classes that its files name.

What a setting means is what the comments say. Its type is the annotation in the class.
"""

from __future__ import annotations

import importlib
import inspect
import re
import types
import typing
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from pydantic import BaseModel

from docs.import_graph import modules
from harness.common.paths import CONF
from harness.config.comments import ConfigFile, chosen, groups, meanings, name_in_group, read_file

# Of settings that the harness reads itself, beside what the optimizer's class takes.
OPTIMIZER_TYPES = {"lr_of": "dict[str, float] or null", "decay_embeddings": "bool"}
# Types


def _types_of_own() -> dict[str, str]:
    """Of all settings of a run and of a sweep, wherever in harness their classes lie."""
    for name, path in modules().items():
        if re.search(r"^class Settings\b", path.read_text(encoding="utf-8"), re.MULTILINE):
            module = importlib.import_module(name)
            of_sweep = _types_of_settings(module.SweepSettings, "sweep.")
            return dict(_types_of_settings(module.Settings)) | dict(of_sweep)
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
    own = _types_of_own()
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
        key = name_in_group(file, setting)
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
