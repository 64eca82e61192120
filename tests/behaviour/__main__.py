"""What a checkout does, recorded; and whether another does the same.

    python -m tests.behaviour record CHECKOUT OUT.json [--only PATTERN]
    python -m tests.behaviour diff A.json B.json
    python -m tests.behaviour freeze A.json SMALL.json

`record` runs the commands of any revision of the repository. `diff` prints a line for everything
of A that B lacks or does otherwise, and leaves with 1 if there is any; with 2 if the two were made
on unlike machines, whose numbers owe each other nothing. What B has more is listed behind it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from .comparing import additions, differences, freeze, unlike_machines
from .recording import record


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.behaviour",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    recording = verbs.add_parser("record", help="run a checkout's commands")
    recording.add_argument("checkout", type=Path)
    recording.add_argument("out", type=Path)
    recording.add_argument("--only", default="", metavar="PATTERN", help="cases of these names")
    for verb, second in (("diff", "b"), ("freeze", "out")):
        other = verbs.add_parser(verb)
        other.add_argument("a", type=Path)
        other.add_argument(second, type=Path)
    arguments = parser.parse_args()
    if arguments.verb == "record":
        _write(arguments.out, record(arguments.checkout, arguments.only))
        return 0
    if arguments.verb == "freeze":
        _write(arguments.out, freeze(_read(arguments.a)))
        return 0
    a, b = _read(arguments.a), _read(arguments.b)
    if unlike := unlike_machines(a, b):
        print(f"not comparable: {unlike}", file=sys.stderr)
        return 2
    lines = list(differences(a, b))
    for line in lines:
        print(line)
    for line in additions(a, b):
        print(f"(more) {line}")
    print(f"{len(a['cases'])} cases, {len(lines)} differences", file=sys.stderr)
    return 1 if lines else 0


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _write(path: Path, value: dict[str, Any]) -> None:
    """A line for each part, so that a changed one is seen as such."""
    cases = ",\n".join(
        f"{json.dumps(name, ensure_ascii=False)}: {{\n"
        + ",\n".join(
            f"  {json.dumps(part, ensure_ascii=False)}: {json.dumps(values, ensure_ascii=False)}"
            for part, values in parts.items()
        )
        + "\n}"
        for name, parts in value["cases"].items()
    )
    head = {name: inner for name, inner in value.items() if name != "cases"}
    text = json.dumps(head, ensure_ascii=False, indent=1).removesuffix("\n}")
    path.write_text(f'{text},\n"cases": {{\n{cases}\n}}}}\n', encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
