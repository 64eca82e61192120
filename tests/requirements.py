"""The requirements of pyproject.toml for trying other versions than the tested ones.

python tests/requirements.py newest    without upper bounds, but for torch
python tests/requirements.py lowest    each at its lower bound
"""

from __future__ import annotations

import itertools
import re
import sys
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
BOUNDED = re.compile(r"([\w.-]+)>=([\w.]+),<([\w.]+)")


def requirements() -> dict[str, tuple[str, str]]:
    """Lower and upper bound of every package that is named, by name.

    Raises ValueError for one that lacks either.
    """
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    extras = project["optional-dependencies"].values()
    named = [*project["dependencies"], *itertools.chain.from_iterable(extras)]
    found = {}
    for line in named:
        if line.startswith(project["name"]):  # extras of extras
            continue
        name, lower, upper = bounded(line)
        found[name] = (lower, upper)
    return found


def bounded(line: str) -> tuple[str, str, str]:
    """Name, lower and upper bound."""
    found = BOUNDED.fullmatch(line)
    if found is None:
        raise ValueError(f"{line} should have a lower and an upper bound")
    return found[1], found[2], found[3]


def main() -> None:
    which = sys.argv[1]
    for name, (lower, upper) in requirements().items():
        if which == "lowest":
            print(f"{name}=={lower}")
        else:
            print(f"{name}>={lower},<{upper}" if name == "torch" else f"{name}>={lower}")


if __name__ == "__main__":
    main()
