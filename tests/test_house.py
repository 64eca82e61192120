"""The house stays livable: conf/ holds data, files are short, and what is installed works."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from harness.cli.hydra_app import compose
from harness.common.paths import CONF, REPOSITORY
from harness.compute import meta
from harness.config.build import resolve_class
from harness.config.settings import read_settings
from harness.data.corpus import Corpus
from harness.loggers.base import Logger
from harness.training.checks import check_settings
from harness.training.schedules import Schedule
from tests.sources import SOURCES, files, under
from tests.waiting import GUARD
from tests.zoo_models import choice
from zoo.language_model import LanguageModel
from zoo_tokenizers import Tokenizer

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
    ("data", "bytes", "path"): "any",
    ("data", "datasets", "name"): "any/name",
    ("data", "datasets_stream", "name"): "any/name",
    ("data", "ids", "path"): "any.npy",
    ("data", "ids", "vocab_size"): "9",
    ("data", "lines", "path"): "any.txt",
    ("data", "mix", "texts"): "{a: python_docs, b: tiny_shakespeare}",
    ("data", "stream", "path"): "any.txt",
    ("data", "text", "path"): "any.txt",
    ("tokenizer", "hf", "name"): "bert-base-uncased",
    ("tokenizer", "tiktoken", "encoding"): "gpt2",
}
CONF_FILES = sorted(CONF.rglob("*.yaml"))


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
        has_base = any(isinstance(name, str) for name in read(path).get("defaults", []))
        assert [at for at, _ in found] == ([] if has_base else [depth])


def test_a_nested_class_is_seen() -> None:
    assert list(targets({"a": [{"b": {"_target_": "x.Y"}}]})) == [(3, "x.Y")]


# Recipes whose like is here and that have tests of their own: tests/zoo/test_ladder.py.
LIKE_OTHERS = re.compile(r"gpt3_(?!small)|ladder_[3-8]")


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=[pytest.mark.long] * bool(LIKE_OTHERS.match(path.name)))
        for path in CONF_FILES
        if path.name != "config.yaml"
    ],
    ids=lambda path: str(path.relative_to(CONF)),
)
def test_every_file_can_be_chosen(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And makes a configuration of classes that are there and could be trained, given the memory
    for GPT-3."""
    monkeypatch.setattr(meta, "total_memory", lambda device: 10**12)
    group, name = path.parent.name, path.stem
    left_to_the_user = [
        f"{group}.{key}={WANTED[group, name, key]}"
        for key, value in read(path).items()
        if value == "???"
    ]
    itself = choice(name) if group == "model" else [f"{group}={name}"]
    if itself == ["tokenizer=ids"]:
        itself = ["data=recall"]  # which chooses it
    chosen = read_settings(compose([*itself, *left_to_the_user]))
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
    environment = {name: os.environ[name] for name in ("PATH", "XDG_CACHE_HOME", "XDG_STATE_HOME")}
    environment["PYTHONPATH"] = str(site)
    assert "    bigram  " in run("harness.train", "--help", env=environment).stdout
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
