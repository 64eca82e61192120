"""The source files, and what each of them imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from harness.common.paths import REPOSITORY

SOURCES = {"zoo": "zoo", "zoo_tokenizers": "tokenizers/zoo_tokenizers", "harness": "harness"}


def imported(path: Path) -> Iterator[str]:
    """The dotted names of all that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            # `from zoo import gpt` imports zoo.gpt.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files(package: str) -> list[Path]:
    found = sorted((REPOSITORY / SOURCES[package]).rglob("*.py"))
    assert len(found) > 3
    return found


def under(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)
