"""README's gallery: the architectures, from the first lines of their modules.

python -m docs.gallery
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import yaml

from docs.import_graph import ROOT

HEAD = "| `model=` | what it is | source | file |\n|---|---|---|---|"
# Of a citation: what comes before its section, or before what else the sentence says.
CITED = re.compile(r"(?:RNN: )?(.+?\d{4}[^()]*?\)(?:,\s+arXiv\s\d{4}\.\d{5})?)", re.DOTALL)


def files() -> dict[Path, list[str]]:
    """Each architecture's module, with the names of the configurations that are built with it."""
    found: dict[Path, list[str]] = defaultdict(list)
    for path in sorted((ROOT / "conf/model").glob("*.yaml")):
        found[ROOT / f"{_target(path).rpartition('.')[0].replace('.', '/')}.py"].append(path.stem)
    return found


def _target(path: Path) -> str:
    node = yaml.safe_load(path.read_text())
    return node.get("_target_") or _target(path.with_name(f"{node['defaults'][0]}.yaml"))


def rows() -> list[str]:
    """In the order of the modules' names."""
    return [_row(path, names) for path, names in sorted(files().items())]


def _row(path: Path, names: list[str]) -> str:
    source = path.read_text(encoding="utf-8")
    first, _, rest = (ast.get_docstring(ast.parse(source)) or "").partition("\n\n")
    what = " ".join(first.split()).rstrip(".")
    cited = CITED.match(rest.split("\n\n")[0])
    paper = " ".join((cited[1] if cited else "").split()).rstrip(",")
    paper = re.sub(r"arXiv (\d{4}\.\d{5})", r"[arXiv \1](https://arxiv.org/abs/\1)", paper)
    file = path.relative_to(ROOT)
    lines = round(len(source.splitlines()), -1)
    # The name of the file first: the others are its relatives.
    names = sorted(names, key=lambda name: (name != path.stem, name))
    called = ", ".join(f"`{name}`" for name in names)
    return f"| {called} | {what} | {paper} | [{file}]({file}), {lines} lines |"


def table() -> str:
    """As Markdown, with links from the repository's root."""
    return "\n".join([HEAD, *rows()])


if __name__ == "__main__":
    print(table())
