"""The house stays livable: arrows point one way, files are short, and what is installed works."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from packaging.version import Version

from docs import import_graph
from harness.cli.hydra_app import compose
from harness.common.paths import CONF, REPOSITORY
from harness.config.build import resolve_class
from harness.config.settings import read_settings
from harness.data.corpus import Corpus
from harness.loggers.base import Logger
from harness.training.checks import check_settings
from harness.training.schedules import Schedule
from tests import requirements
from tests.waiting import GUARD
from zoo.language_model import LanguageModel
from zoo_tokenizers import Tokenizer

SOURCES = {"zoo": "zoo", "zoo_tokenizers": "tokenizers/zoo_tokenizers", "harness": "harness"}
INTERFACES: dict[str, type] = {
    "data": Corpus,
    "tokenizer": Tokenizer,
    "model": LanguageModel,
    "optimizer": torch.optim.Optimizer,
    "schedule": Schedule,
    "logger": Logger,
}
# What a file leaves to the user, by group, name and key.
WANTED = {
    ("data", "text", "path"): "any.txt",
    ("tokenizer", "hf", "name"): "bert-base-uncased",
    ("tokenizer", "tiktoken", "encoding"): "gpt2",
}
CONF_FILES = sorted(CONF.rglob("*.yaml"))


# Arrows


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
    *("common", "config", "compute", "data", "runs", "sampling", "evaluation", "observe"),
    *("report", "loggers", "training", "cli", "diagnostics", "live"),
)
COMMANDS = {name for name in import_graph.modules() if re.fullmatch(r"harness\.(\w+)", name)} - {
    f"harness.{package}" for package in FLOORS
}
# Libraries that are only there for those who use them, and what is only needed when a sweep starts.
LATE = {"harness.cli.sweep_callback", "harness.loggers.wandb"}


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


# The name `tokenizers`


def test_tokenizers_stays_the_installed_library() -> None:
    """From the repository's root, where our folder of that name lies on the path."""
    assert not (REPOSITORY / "tokenizers" / "__init__.py").exists()
    script = (
        "import tokenizers, transformers, zoo_tokenizers\n"
        "from transformers import BertTokenizerFast, GPT2LMHeadModel\n"
        "print(tokenizers.__file__, tokenizers.Tokenizer, zoo_tokenizers.__file__, sep='\\n')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script],
        cwd=REPOSITORY, env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True, text=True, timeout=GUARD,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    theirs, kind, ours = ended.stdout.splitlines()
    assert Path(theirs).parent.parent != REPOSITORY
    assert "site-packages" in theirs
    assert kind == "<class 'tokenizers.Tokenizer'>"
    assert Path(ours).parent == REPOSITORY / "tokenizers" / "zoo_tokenizers"


# conf/


def targets(node: Any, depth: int = 0) -> Iterator[tuple[int, str]]:
    """Every `_target_` in a file, with how deep it lies."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == "_target_":
                yield depth, value
            yield from targets(value, depth + 1)
    elif isinstance(node, list):
        for value in node:
            yield from targets(value, depth + 1)


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text()) or {}


@pytest.mark.parametrize("path", CONF_FILES, ids=lambda path: str(path.relative_to(CONF)))
def test_a_file_names_at_most_one_class_and_is_flat(path: Path) -> None:
    group = path.relative_to(CONF).parent.as_posix()
    found = list(targets(read(path)))
    if path.name == "config.yaml":
        assert [name for _, name in found] == ["harness.cli.sweep_callback.SweepReport"]
    elif group not in INTERFACES:
        assert found == []
    else:
        # A logger lies under its own name, so that several can be chosen; a file that begins with
        # another's defaults has its class.
        depth = 1 if group == "logger" else 0
        assert [at for at, _ in found] == ([] if "defaults" in read(path) else [depth])


def test_a_nested_class_is_seen() -> None:
    assert list(targets({"a": [{"b": {"_target_": "x.Y"}}]})) == [(3, "x.Y")]


@pytest.mark.parametrize(
    "path",
    [path for path in CONF_FILES if path.name != "config.yaml"],
    ids=lambda path: str(path.relative_to(CONF)),
)
def test_every_file_can_be_chosen(path: Path) -> None:
    """And makes a configuration of classes that are there and could be trained."""
    group, name = path.parent.name, path.stem
    left_to_the_user = [
        f"{group}.{key}={WANTED[group, name, key]}"
        for key, value in read(path).items()
        if value == "???"
    ]
    chosen = read_settings(compose([f"{group}={name}", *left_to_the_user]))
    check_settings(chosen)
    for where, interface in INTERFACES.items():
        nodes = chosen.logger.values() if where == "logger" else [getattr(chosen, where)]
        for node in nodes:
            assert resolve_class(node["_target_"], interface, where)


def test_conf_holds_no_code() -> None:
    kinds = {path.suffix for path in CONF.rglob("*") if path.is_file()}
    assert kinds == {".yaml"}


# Files


def test_no_file_of_the_source_is_long() -> None:
    source = (*SOURCES.values(), "conf")
    lengths = {
        path: len(path.read_text().splitlines())
        for folder in source
        for path in (REPOSITORY / folder).rglob("*")
        if path.suffix in (".py", ".yaml")
    }
    assert len(lengths) > 50
    assert {path: length for path, length in lengths.items() if length > 500} == {}


def classes_by_name(paths: Iterable[Path]) -> dict[str, list[str]]:
    """Each class's name, with the files that define one of that name."""
    found: dict[str, list[str]] = {}
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, []).append(path.name)
    return found


@pytest.mark.parametrize("package", SOURCES)
def test_no_two_classes_share_a_name(package: str) -> None:
    found = classes_by_name(files(package))
    assert {name: paths for name, paths in found.items() if len(paths) > 1} == {}


def test_a_second_class_of_a_name_is_seen(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("class Run:\n    class Cost: ...\n")
    (tmp_path / "b.py").write_text("def late():\n    class Cost: ...\n")
    found = classes_by_name(sorted(tmp_path.iterdir()))
    assert found == {"Run": ["a.py"], "Cost": ["a.py", "b.py"]}


def test_hooks_use_the_environments_own_tools() -> None:
    """Nothing is downloaded to check a commit."""
    hooks = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"]
    assert {repository["repo"] for repository in hooks} == {"local"}
    assert all(hook["language"] == "system" for each in hooks for hook in each["hooks"])


# The wheel


@pytest.mark.long
def test_the_wheel_works_from_another_folder(tmp_path: Path) -> None:
    def run(*command: str, **more: Any) -> subprocess.CompletedProcess[str]:
        ended = subprocess.run(
            [sys.executable, "-m", *command], cwd=tmp_path, capture_output=True, text=True, **more
        )
        assert ended.returncode == 0, ended.stderr
        return ended

    run("pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", "-w", ".", str(REPOSITORY))
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
    for path in CONF_FILES:
        assert f"conf/{path.relative_to(CONF)}" in names
    for package, folder in SOURCES.items():
        for path in files(package):
            assert f"{package}/{path.relative_to(REPOSITORY / folder)}" in names
    strangers = {name for name in names if not under(name.replace("/", "."), *SOURCES, "conf")}
    assert all(".dist-info/" in name for name in strangers)

    site = tmp_path / "site"
    run("pip", "install", "--no-deps", "--quiet", "--target", str(site), str(wheel))
    environment = {name: os.environ[name] for name in ("PATH", "XDG_CACHE_HOME")}
    environment["PYTHONPATH"] = str(site)
    assert "model: bigram," in run("harness.train", "--help", env=environment).stdout
    line = (
        "model=bigram",
        "data=python_docs",
        "train.steps=1",
        "run_dir=run",
        "eval.sample_tokens=9",
    )
    ended = run("harness.train", *line, env=environment)
    assert "test " in ended.stdout
    assert "bits_per_byte" in run("harness.evaluate", "run", env=environment).stdout
    found = subprocess.run(
        [sys.executable, "-c", "import harness; print(harness.__file__)"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout.startswith(str(site))
