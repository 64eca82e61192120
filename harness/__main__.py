"""`zoo train …` is `python -m harness.train …`, and so for every command."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import sys
from importlib.util import find_spec
from pathlib import Path

import harness
from harness.cli.tool import run_tool
from harness.common.errors import UsageError
from harness.common.values import nearest, show


def main() -> None:
    """The console script."""
    run_tool(_list_commands if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help") else _run)


def commands() -> dict[str, str]:
    """The name of each command's module: the modules at the root of harness, and those packages
    that can be run."""
    found = {}
    for module in pkgutil.iter_modules(harness.__path__):
        if not module.ispkg and not module.name.startswith("_"):
            found[module.name] = f"harness.{module.name}"
        elif module.ispkg and find_spec(f"harness.{module.name}.__main__"):
            found[module.name] = f"harness.{module.name}.__main__"
    return found


def _list_commands() -> int:
    print("zoo COMMAND …: language models on one shared harness\n")
    for name, module in commands().items():
        spec = find_spec(module)
        assert spec is not None, module
        assert spec.origin is not None, module
        summary = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8")))
        print(f"  {name:10} {(summary or '').splitlines()[0]}")
    print("\nzoo COMMAND --help says more.")
    return 0


def _run() -> int:
    name, known = sys.argv[1], commands()
    if name not in known:
        raise UsageError(
            f"there is no command {show(name)}.{nearest(name, known)} Commands: {', '.join(known)}"
        )
    sys.argv = [f"zoo {name}", *sys.argv[2:]]
    importlib.import_module(known[name]).main()
    return 0


if __name__ == "__main__":
    main()
