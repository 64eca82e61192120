"""Which of our modules and packages import which, read from the source; and circles among them."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = (ROOT, ROOT / "tokenizers")  # what holds the packages
TOP = ("harness", "zoo", "zoo_tokenizers")

Graph = dict[str, set[str]]


def modules() -> dict[str, Path]:
    """The file of every module of ours, by its dotted name; a package's is its `__init__.py`."""
    found = {}
    for folder in FOLDERS:
        for package in TOP:
            for path in sorted((folder / package).rglob("*.py")):
                parts = path.relative_to(folder).with_suffix("").parts
                found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def import_graph(*, type_checking: bool = True) -> Graph:
    """Which modules of ours each module of ours imports, anywhere in its file.

    type_checking: count the imports under `if TYPE_CHECKING`, too.
    """
    files = modules()
    return {
        name: {
            target
            for imported in _imports(ast.parse(path.read_text(encoding="utf-8")), type_checking)
            if (target := _owner(imported, files)) not in (None, name)
        }
        for name, path in files.items()
    }


def package_graph(graph: Mapping[str, Iterable[str]] | None = None) -> Graph:
    """Which packages each package imports. The modules that lie directly in `harness` are its
    commands, so the node `harness` stands for those."""
    graph = import_graph() if graph is None else graph
    initial = {name for name, path in modules().items() if path.name == "__init__.py"}

    def package(name: str) -> str:
        return name if name in initial else name.rpartition(".")[0]

    found: Graph = {package(name): set() for name in sorted(graph)}
    for name, targets in graph.items():
        found[package(name)] |= {package(target) for target in targets}
    return {name: targets - {name} for name, targets in found.items()}


def circles(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """The groups of nodes that import one another, directly or through others; [] if there are
    none. (The strongly connected components of more than one node.)"""
    return [group for group in components(graph) if len(group) > 1]


def description(package: str) -> str:
    """The docstring of a package, on one line; "" if it has no `__init__.py`."""
    path = modules().get(package)
    if path is None:
        return ""
    return " ".join((ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split())


def _imports(tree: ast.AST, type_checking: bool) -> Iterator[str]:
    """The dotted names that a file imports."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif type_checking or not _only_for_types(node):
            yield from _imports(node, type_checking)


def _only_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _owner(imported: str, files: Mapping[str, Path]) -> str | None:
    """The module that an imported name is or lies in; None if it is not ours."""
    while imported and imported not in files:
        imported = imported.rpartition(".")[0]
    return imported or None


def _reachable(graph: Mapping[str, Iterable[str]], start: str) -> set[str]:
    seen, waiting = set[str](), [start]
    while waiting:
        for target in graph.get(waiting.pop(), ()):
            if target not in seen:
                seen.add(target)
                waiting.append(target)
    return seen


def components(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """The strongly connected components, each sorted by name."""
    reach = {name: _reachable(graph, name) for name in graph}
    groups = {
        tuple(sorted({name} | {other for other in reach[name] if name in reach[other]}))
        for name in graph
    }
    return [list(group) for group in sorted(groups)]


def table(packages: Mapping[str, Iterable[str]]) -> str:
    """Each package with its docstring, its modules and what it imports, as Markdown."""
    files = modules()
    rows = ["| package | what it is | its modules | imports |", "|---|---|---|---|"]
    for name, targets in sorted(packages.items()):
        inside = [
            module.rpartition(".")[2]
            for module, path in files.items()
            if module.rpartition(".")[0] == name and path.name != "__init__.py"
        ]
        cells = (", ".join(f"`{each}`" for each in sorted(names)) for names in (inside, targets))
        rows.append(f"| `{name}` | {description(name)} | {' | '.join(cells)} |")
    return "\n".join(rows)
