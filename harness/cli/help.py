"""What `--help` says of a command that takes settings: its own words, then all choices and settings
with the comments of conf/."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from harness.common.paths import CONF
from harness.common.values import show
from harness.config.comments import group_names, meanings, meanings_in, read_file, summaries

COLUMN = 34  # where meanings begin


def page(words: str, config: DictConfig, choices: Callable[[str], list[str]], resolve: bool) -> str:
    """words: the command's docstring. choices: gives the names of a group's files. resolve: show
    what settings that refer to others come to."""
    chosen: Any = OmegaConf.to_container(config.hydra.runtime.choices)
    lines = [words.strip(), "", "Choices, GROUP=NAME:"]
    known = meanings([read_file(CONF / "config.yaml")])
    for group in group_names():
        names, name, said = choices(group), chosen.get(group), summaries(group)
        if len(names) > 1:
            lines.append(f"  {group}={name}" if isinstance(name, str) else f"  {group}=")
            lines += [_row(f"    {each}", said.get(each, "")) for each in names]
        if group != "experiment":
            found = meanings_in(group, name if isinstance(name, str) else None)
            known |= {f"{group}.{key}": meaning for key, meaning in found.items()}
    lines += ["", "Settings, KEY=VALUE, of these choices:"]
    plain: Any = OmegaConf.to_container(config, resolve=resolve)
    for key, value in _settings(plain):
        group = key.rpartition(".")[0]  # says it of settings that have no fixed names
        lines.append(_row(f"  {key}={_typed(value)}", known.get(key) or known.get(group, "")))
    return "\n".join(lines)


def _row(left: str, meaning: str) -> str:
    return f"{left:{COLUMN}}  {meaning}".rstrip()


def _typed(value: object) -> str:
    """As it is typed; a line break as \\n."""
    return show(value) if not isinstance(value, str) or value.isprintable() else json.dumps(value)


def _settings(plain: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting with its dotted key."""
    for key, value in plain.items():
        if key == "_target_" or (not prefix and key in ("hydra", "experiment")):
            continue
        if isinstance(value, dict) and value:
            yield from _settings(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
