"""`zoo train …` is `python -m harness.train …`, and so for every command."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import sys
from importlib.util import find_spec
from pathlib import Path

import harness
from harness.cli.tool import command
from harness.common.errors import UsageError
from harness.common.values import did_you_mean, show


@command
def main() -> int:
    """The console script: list the commands, or run one."""
    known = commands()
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        _list_commands(known)
        return 0
    name = sys.argv[1]
    if name not in known:
        raise UsageError(
            f"there is no command {show(name)}.{did_you_mean(name, known)} "
            f"Commands: {', '.join(known)}"
        )
    sys.argv = [f"zoo {name}", *sys.argv[2:]]
    importlib.import_module(known[name]).main()
    return 0


def commands() -> dict[str, str]:
    """The module of each command: the modules at the root of harness, and the packages with a
    __main__."""
    found = {}
    for module in pkgutil.iter_modules(harness.__path__):
        name = f"harness.{module.name}"
        if not module.ispkg and not module.name.startswith("_"):
            found[module.name] = name
        elif module.ispkg and find_spec(f"{name}.__main__"):
            found[module.name] = f"{name}.__main__"
    return found


def _list_commands(known: dict[str, str]) -> None:
    print("zoo COMMAND …: language models on one shared harness\n")
    for name, module in known.items():
        spec = find_spec(module)
        assert spec is not None, module
        assert spec.origin is not None, module
        summary = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8")))
        print(f"  {name:10} {(summary or '').splitlines()[0]}")
    print("\nRun zoo COMMAND --help for its options.")


if __name__ == "__main__":
    main()
