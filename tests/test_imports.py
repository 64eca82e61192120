"""Arrows point one way: packages import what lies below them, and only dependencies."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.version import Version

from docs import import_graph
from harness.common.paths import REPOSITORY
from tests import requirements
from tests.sources import SOURCES, files, imported, under

# What each package of ours may know of the others.
ALLOWED = {
    "zoo": ("zoo",),
    "zoo_tokenizers": ("zoo_tokenizers",),
    "harness": (
        "harness",
        "zoo.language_model",
        "zoo.roles",
        *(f"zoo_tokenizers.{name}" for name in __import__("zoo_tokenizers").__all__),
    ),
}


def wrong_arrows(package: str, path: Path) -> list[str]:
    ours = (*SOURCES, "tests", "experiments", "conf")
    return [
        name for name in imported(path) if under(name, *ours) and not under(name, *ALLOWED[package])
    ]


@pytest.mark.parametrize("package", SOURCES)
def test_arrows_point_one_way(package: str) -> None:
    assert {path: wrong for path in files(package) if (wrong := wrong_arrows(package, path))} == {}


@pytest.mark.parametrize(
    ("package", "line"),
    [
        ("zoo", "from harness import config"),
        ("zoo", "import zoo_tokenizers"),
        ("zoo_tokenizers", "import harness.data as data"),
        ("zoo_tokenizers", "def late():\n    from zoo.gpt import GPT"),
        ("harness", "from zoo.gpt import GPT"),
        ("harness", "from zoo import gpt"),
        ("harness", "import zoo.layers"),
        ("harness", "from zoo_tokenizers.bytes import Bytes"),
        ("harness", "from zoo_tokenizers import bytes"),
        ("harness", "import tests.small_runs"),
        ("harness", "from experiments import log"),
    ],
)
def test_a_wrong_arrow_is_seen(package: str, line: str, tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(line)
    assert wrong_arrows(package, path)


# The packages of harness, from the ground up: each may import those before it.
FLOORS = (
    *("common", "config", "compute", "data", "runs", "sampling", "evaluation", "compression"),
    *("referee", "observe", "report", "loggers", "training", "cli", "live", "diagnostics"),
    *("judging", "scaffold", "tuning"),
)
COMMANDS = {name for name in import_graph.modules() if re.fullmatch(r"harness\.(\w+)", name)} - {
    f"harness.{package}" for package in FLOORS
}
# Libraries that are only there for those who use them, what is only needed when a sweep starts, and
# torch, which one of the referee's two processes does without.
LATE = {"harness.cli.sweep_callback", "harness.loggers.wandb", "harness.referee.process"}


def floor(module: str) -> int:
    return FLOORS.index(module.split(".")[1]) if module not in COMMANDS else len(FLOORS)


def rising(graph: dict[str, set[str]]) -> list[str]:
    """The imports of a module that lies on a higher floor."""
    return [
        f"{name} imports {target}"
        for name, targets in graph.items()
        for target in targets
        if under(name, "harness") and under(target, "harness") and "harness" not in (name, target)
        if floor(target) > floor(name)
    ]


def test_every_package_has_a_floor_and_says_what_it_holds() -> None:
    packages = {path.parent.name for path in (REPOSITORY / "harness").glob("*/__init__.py")}
    assert packages == set(FLOORS)
    for name in FLOORS:
        assert len(import_graph.description(f"harness.{name}")) > 20, name


def test_packages_import_what_lies_below_them() -> None:
    """The sweep's callback is Hydra's to build at every start: it lies with what starts commands,
    and imports the sweep when there is one."""
    graph = import_graph.import_graph()
    assert rising(graph) == []
    assert import_graph.circles(graph) == []
    packages = {
        name: {target for target in targets if under(target, "harness")}
        for name, targets in import_graph.package_graph(graph).items()
        if under(name, "harness")
    }
    assert import_graph.circles(packages) == []


def test_a_rising_import_is_seen() -> None:
    wrong = {"harness.common.files": {"harness.data.assets"}, "harness.live.watch": set()}
    assert rising(wrong) == ["harness.common.files imports harness.data.assets"]
    assert rising({"harness.training.run": {"harness.train"}}) != []


def test_commands_are_nobodys_library() -> None:
    """They are thin: what they do is imported when what was typed is known to be right."""
    graph = import_graph.import_graph()
    importers = {name for name, targets in graph.items() if targets & (COMMANDS - {"harness"})}
    assert importers <= COMMANDS
    for name in COMMANDS - {"harness", "harness.__main__"}:
        path = import_graph.modules()[name]
        assert len(path.read_text().splitlines()) < 130, name
        assert "\ndef main() -> " in path.read_text(), name


def test_only_commands_import_late() -> None:
    found = {
        name
        for name, path in import_graph.modules().items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
        for inner in ast.walk(node)
        if isinstance(inner, ast.ImportFrom) and under(inner.module or "", "harness")
    }
    assert found <= COMMANDS | LATE | {"harness.live.__main__"}


def test_every_dependency_is_bounded_and_pinned() -> None:
    """With a lower and an upper bound, and a pin between them."""
    pins = dict(
        line.split("==")
        for line in (REPOSITORY / "constraints.txt").read_text().splitlines()
        if line[0] != "#"
    )
    pins = {name.lower().replace("_", "-"): Version(pin) for name, pin in pins.items()}
    bounds = requirements.requirements()
    assert len(bounds) > 20
    for name, (lower, upper) in bounds.items():
        assert Version(lower) <= pins[name.lower().replace("_", "-")] < Version(upper), name
    with pytest.raises(ValueError, match="lower and an upper"):
        requirements.bounded("torch>=2.10")


def test_every_package_that_is_used_is_a_dependency() -> None:
    """By the name under which it is imported; and torch is all that an architecture needs."""
    names = {"hydra-core": "hydra", "pyyaml": "yaml", "wandb-workspaces": "wandb_workspaces"}
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    optional = [line for extra in extras if extra not in ("dev", "docs") for line in extras[extra]]
    declared = [line.split(">")[0].lower() for line in project["dependencies"] + optional]
    known = {names.get(name, name) for name in declared} | set(SOURCES)
    known |= {"pydantic_core"}  # comes with pydantic, which documents its errors there
    for package in SOURCES:
        for path in files(package):
            found = {name.partition(".")[0] for name in imported(path)}
            assert found - set(sys.stdlib_module_names) <= known, path
            if package == "zoo" and path.name != "hugging_face.py":
                assert found - set(sys.stdlib_module_names) <= {"torch", "zoo"}, path
