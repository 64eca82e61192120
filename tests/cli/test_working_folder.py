"""Commands import nothing from the working folder, which may be a stranger's run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.common.errors import UsageError
from harness.config.build import resolve_class
from harness.training.schedules import Schedule

Process = Callable[..., subprocess.CompletedProcess[str]]
PLANTED = "open({mark!r}, 'a').write({name!r})\nraise ImportError({name!r})\n"
# What Python itself imports before it has found the command: see SECURITY.md.
BEFORE = {
    *("importlib", "warnings", "contextlib", "collections", "keyword", "operator", "reprlib"),
    *("functools", "types", "runpy", "harness"),
}


def test_no_module_of_the_working_folder_is_imported(process: Process, tmp_path: Path) -> None:
    here, mark = tmp_path / "here", tmp_path / "ran"
    here.mkdir()
    for name in {*sys.stdlib_module_names, "yaml", "torch", "numpy", "hydra", "pydantic"} - BEFORE:
        (here / f"{name}.py").write_text(PLANTED.format(mark=str(mark), name=name))
    ended = process("evaluate", "--help")
    assert ended.returncode == 0, ended.stderr
    assert not mark.exists(), mark.read_text()


def test_a_trusted_package_may_lie_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_own_schedules.py").write_text(
        "from harness.training.schedules import Schedule\n"
        "import my_own_helper\n"
        "class Flat(Schedule):\n"
        "    def factor(self, progress):\n"
        "        return 1.0\n"
    )
    (tmp_path / "my_own_helper.py").write_text("")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    target = "my_own_schedules.Flat"
    with pytest.raises(UsageError, match="outside the trusted packages"):
        resolve_class(target, Schedule, "schedule")
    with pytest.raises(UsageError, match="does not exist"):
        resolve_class("my_own_schedules.None_", Schedule, "schedule", ["my_own_schedules"])
    assert sys.path == before
    assert sys.modules["my_own_schedules"].__file__ == str(tmp_path / "my_own_schedules.py")
