"""Whatever is written goes through harness.common.files: whole, or not at all."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from harness.common.paths import REPOSITORY
from tests.sources import SOURCES, files

# What may write by itself, and why.
OWN = {
    "harness/common/files.py": "the place for it",
    "harness/compute/memory.py": "a switch of Linux, no file",
    "harness/cli/streams.py": "the standard streams",
    "harness/judging/ledger.py": "a lock, which holds nothing",
    "harness/loggers/follow.py": "a lock, which holds nothing",
    "harness/runs/folder.py": "a lock, which holds nothing",
    "harness/tuning/sweeps.py": "the null device",
}
# Drills damage files, and keep what their trainings print.
OWN_FOLDERS = ("harness/diagnostics/drill.py", "harness/diagnostics/faults/")
WRITERS = {"write_text", "write_bytes", "copyfile", "copy2", "copytree", "touch"}


def writes(source: str) -> list[int]:
    """The lines that open a file for writing, or write one without opening it."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and _writes(node)
    ]


def _writes(call: ast.Call) -> bool:
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if name in WRITERS:
        return True
    if name == "savefig":  # to a file that is open is fine
        return "format" not in {keyword.arg for keyword in call.keywords}
    if name in ("open", "fdopen", "NamedTemporaryFile"):
        given = [*call.args, *(keyword.value for keyword in call.keywords)]
        constants = [each.value for each in given if isinstance(each, ast.Constant)]
        modes = [each for each in constants if isinstance(each, str) and len(each) <= 4]
        opens = any(set(mode) & set("wax+") and set(mode) <= set("rwaxbt+") for mode in modes)
        flags = {node.attr for each in given for node in ast.walk(each) if hasattr(node, "attr")}
        return opens or bool(flags & {"O_WRONLY", "O_RDWR", "O_CREAT"})
    return False


@pytest.mark.parametrize("package", SOURCES)
def test_every_write_goes_through_one_place(package: str) -> None:
    found = {}
    for path in files(package):
        name = path.relative_to(REPOSITORY).as_posix()
        if name not in OWN and not name.startswith(OWN_FOLDERS):
            found[name] = writes(path.read_text())
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_those_with_writes_of_their_own_have_some() -> None:
    assert all(writes((REPOSITORY / name).read_text()) for name in OWN)


@pytest.mark.parametrize(
    "line",
    [
        'open("a", "w")',
        'path.open("ab", buffering=0)',
        'path.open(mode="r+b")',
        "path.write_text(text)",
        "(folder / name).write_bytes(content)",
        "os.open(path, os.O_WRONLY | os.O_CREAT)",
        "figure.savefig(out, dpi=110)",
        "shutil.copyfile(a, b)",
    ],
)
def test_a_write_is_seen(line: str) -> None:
    assert writes(line) == [1]


@pytest.mark.parametrize(
    "line",
    [
        'path.open("rb")',
        "open(path)",
        "logger.open(folder, settings, step)",
        'figure.savefig(file, format="png")',
        "os.open(folder, os.O_RDONLY)",
        'file.write(b"")',
    ],
)
def test_a_read_is_none(line: str) -> None:
    assert writes(line) == []


def test_the_test_looks_at_all_of_the_source() -> None:
    assert {Path(name).parts[0] for name in OWN} <= {"harness"}
    assert len(files("harness")) > 100
