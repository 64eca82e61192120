"""The pages people read: their links lead somewhere, their command lines work, their parts that are
made from the source are whole."""

from __future__ import annotations

import argparse
import os
import re
import runpy
import shlex
import subprocess
import sys
import types
import unicodedata
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from docs import import_graph, packages_picture, settings_reference
from harness.cli.hydra_app import compose
from tests.zoo.laws import LAWS
from tests.zoo_models import VOCAB, randomize
from zoo.language_model import LanguageModel

ROOT = import_graph.ROOT
PAGES = sorted(
    path for pattern in ("*.md", "docs/*.md", "experiments/**/*.md") for path in ROOT.glob(pattern)
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r'\]\(([^)\s]+)\)|(?:src|srcset|href)="([^"]+)"')
INLINE = re.compile(r"`([^`\n]+)`")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_all_pages_are_looked_at() -> None:
    assert {"README.md", "CONTRIBUTING.md", "docs/index.md", "experiments/LOG.md"} <= {
        name_of(path) for path in PAGES
    }


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 150


# Links


def prose(text: str) -> str:
    """Without code, in which brackets are no links."""
    return INLINE.sub("", FENCE.sub("", text))


def anchors(text: str) -> set[str]:
    """The headings' anchors that the repository's host and the built site agree on."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip()
        hosted = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        ascii_only = unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode()
        built = re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", ascii_only).strip().lower())
        if hosted == built:
            found.add(hosted)
    return found


def broken_links(page: Path) -> list[str]:
    broken = []
    for groups in LINK.findall(prose(page.read_text())):
        link = groups[0] or groups[1]
        if re.match(r"\w+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = page.parent / place if place else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def test_a_broken_link_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# The title\n[a](#the-title) [b](#other) [c](none.md) [d](page.md#the-title)\n"
        '<img src="none.png"> `[e](in_code)` [f](https://example.org/none)\n'
    )
    assert broken_links(page) == ["#other", "none.md", "none.png"]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_paths_that_are_named_exist(page: Path) -> None:
    """Those of the repository, from its root. `x.py` and the example are the reader's own."""
    folders = "conf|zoo|harness|tests|experiments|sweeps|tokenizers|docs"
    theirs = {"zoo/decay.py", "conf/model/decay.yaml", "tests/zoo/architectures/decay.py"}
    for path in re.findall(rf"`((?:{folders})/[\w./-]*)`", page.read_text()):
        if path not in theirs and not re.search(r"/x\.\w+$", path):
            assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_make_targets_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^|`)make ([a-z][\w-]*)", page.read_text(), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


# Command lines


class Parsed(BaseException):
    """The command's options were understood. (Nothing on the way up may catch it.)"""


def shown_in(path: Path) -> Iterator[str]:
    """The command lines of ours that a page shows, or a file of conf/ or sweeps/ in a comment."""
    text = path.read_text()
    if path.suffix == ".md":
        code = [block for _, block in FENCE.findall(text)]
        code += INLINE.findall(FENCE.sub("", text))
    else:
        code = re.findall(r"^#\s*(.*)$", re.sub(r"\\\n#\s*", "", text), re.MULTILINE)
    for block in code:
        variables = dict(re.findall(r'^([A-Z]+)="([^"]*)"', block, re.MULTILINE))
        for line in block.replace("\\\n", "").splitlines():
            found = re.search(r"python -m (?:torch\.distributed\.run .*)?harness\.[a-z].*", line)
            if found:
                known = found[0]
                for name in re.findall(r"\$([A-Z]+)", known):
                    known = known.replace(f"${name}", variables.get(name, ""))
                yield re.sub(r"\[(--[^\]]*)\]", r"\1", known)


def module_of(line: str) -> tuple[str, list[str]]:
    """The module that a command line runs, and its arguments."""
    words = shlex.split(line.split("  (")[0], comments=True)
    at = next(n for n, word in enumerate(words) if word.startswith("harness."))
    return words[at], words[at + 1 :]


def is_hydra(module: str) -> bool:
    files = import_graph.modules()
    path = files.get(f"{module}.__main__", files[module])
    return "run_hydra(" in path.read_text()


HYDRA_OPTIONS = {"-m", "--multirun", "--help", "--cfg", "--resolve"}


def check_settings(module: str, words: list[str]) -> None:
    """They compose: each choice of a sweep at least once. What stands for the reader's own words is
    left out."""
    source = import_graph.modules()[module].read_text()
    sweep = "-m" in words or "experiment=compare" in words  # a recipe that is a sweep by itself
    choices = []
    for word in words:
        if word.startswith("-"):
            assert word in HYDRA_OPTIONS or f'"{word}"' in source, f"{module} has no {word}"
            continue
        key, equals, value = word.partition("=")
        if not equals or value == "…":
            continue
        several = value.split(",") if sweep and not value.startswith("[") else [value]
        choices.append([f"{key}={each}" for each in several if each != "…"])
    for number in range(max(map(len, choices), default=1)):
        overrides = tuple(each[number % len(each)] for each in choices)
        if overrides not in composed:
            compose(list(overrides))
            composed.add(overrides)


composed: set[tuple[str, ...]] = set()


def check_options(module: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The command's own parser takes them."""

    def parse(name: str) -> Any:
        original = getattr(argparse.ArgumentParser, name)

        def stop(self: argparse.ArgumentParser, *given: Any, **more: Any) -> None:
            original(self, *given, **more)
            raise Parsed

        return stop

    for name in ("parse_args", "parse_intermixed_args"):
        monkeypatch.setattr(argparse.ArgumentParser, name, parse(name))
    monkeypatch.setattr(sys, "argv", [module, *(word.rstrip("…") for word in words)])
    with pytest.raises(Parsed):
        runpy.run_module(module, run_name="__main__", alter_sys=False)


COMMENTED = [*(ROOT / "conf").rglob("*.yaml"), *(ROOT / "sweeps").glob("*.yaml")]
LINES = sorted({line for path in [*PAGES, *COMMENTED] for line in shown_in(path)})


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("line", LINES)
def test_a_command_line_works(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, words = module_of(line)
    if is_hydra(module):
        check_settings(module, words)
    else:
        check_options(module, words, monkeypatch)


def test_command_lines_are_found() -> None:
    assert len(LINES) > 60
    assert "python -m harness.train experiment=seed_mlp" in {line.split("  ")[0] for line in LINES}


def test_every_command_is_on_the_page_of_commands() -> None:
    page = (ROOT / "docs" / "command-line.md").read_text()
    for module, path in import_graph.modules().items():
        if 'if __name__ == "__main__"' in path.read_text():
            command = module.removesuffix(".__main__").removeprefix("harness.")
            if "." in command or module == "harness.__main__":
                continue  # a process of the harness's own; `zoo`, which is all of them
            assert f"| [{command}](#" in page, command
            assert f"python -m harness.{command}" in page, command


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize(
    "line",
    [
        "python -m harness.train modle=gpt",
        "python -m harness.train -m model=gpt,none",
        "python -m harness.train optimizer.rl=1",
        "python -m harness.train --splitt",
        "python -m harness.evaluate RUN --splitt test",
        "python -m harness.sample --prompt x",
        "python -m harness.compare RUN --html x",
    ],
)
def test_a_wrong_command_line_is_seen(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises((Exception, pytest.fail.Exception, SystemExit)):
        test_a_command_line_works(line, monkeypatch)


# The example of a new model


def example() -> types.ModuleType:
    blocks = FENCE.findall((ROOT / "docs" / "adding-a-model.md").read_text())
    (code,) = (block for language, block in blocks if language == "python")
    module = types.ModuleType("decay")
    exec(compile(code, "decay.py", "exec"), vars(module))
    return module


@pytest.mark.parametrize("law", sorted(set(LAWS) - {"overfitting"}))
def test_the_example_of_a_model_keeps_the_laws(law: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model_class = example().Decay

    def make(random: bool = True) -> LanguageModel:
        model = model_class(VOCAB, n_embd=8).double().eval()
        return randomize(model) if random else model

    LAWS[law](make)


# What is made from the source


def test_every_setting_has_a_meaning() -> None:
    groups = settings_reference.groups()
    files = {**groups, "config": [settings_reference.read_file(ROOT / "conf" / "config.yaml")]}
    files.pop("experiment")
    for group, members in files.items():
        known = settings_reference.meanings(members)
        for file in members:
            for setting in file.settings:
                name = setting.key.partition(".")[2] if group == "logger" else setting.key
                assert known.get(name), f"{name_of(file.path)}: {setting.key} has no comment"
            assert group == "config" or file.description, f"{name_of(file.path)} has no first line"


def test_the_reference_has_every_setting() -> None:
    reference = settings_reference.reference()
    row = "| `lr` | `1.0e-3` | `float` | peak learning rate |"
    for line in ("### model=gpt", "## experiment", row, "| `steps` | `null` | `int or null` |"):
        assert line in reference, line
    for files in settings_reference.groups().values():
        for file in files:
            assert f"`{file.name}`" in reference or f"={file.name}" in reference or len(files) == 1


def test_comments_are_read(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(
        "# What the file\n# is.\n_target_: a.B\none: 1   # the first\ntwo: [null]\n"
        'three: "a # b"\n# The fourth.\nfour:\n  inner: null   # in there\n'
    )
    file = settings_reference.read_file(path)
    assert (file.description, file.target) == ("What the file is.", "a.B")
    assert [(each.key, each.default, each.meaning) for each in file.settings] == [
        ("one", "1", "the first"),
        ("two", "[null]", ""),
        ("three", '"a # b"', ""),
        ("four.inner", "null", "in there"),
    ]


def test_the_import_graph_is_that_of_the_files() -> None:
    graph = import_graph.import_graph()
    assert set(graph) == set(import_graph.modules())
    assert "zoo.language_model" in graph["zoo.gpt"]
    assert "torch" not in set().union(*graph.values())
    packages = import_graph.package_graph(graph)
    assert "zoo" in set().union(*(packages[name] for name in packages if "harness" in name))
    assert [name for name in packages if not import_graph.description(name)] == []


def test_imports_for_types_alone_can_be_left_out() -> None:
    import ast

    tree = ast.parse(
        "import a\nif TYPE_CHECKING:\n    import b\ndef late():\n    from c import d\n"
    )
    assert list(import_graph._imports(tree, True)) == ["a", "b", "c.d"]
    assert list(import_graph._imports(tree, False)) == ["a", "c.d"]


def test_circles_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"a"}}
    assert import_graph.circles(graph) == [["a", "b", "c"]]
    assert import_graph.circles({"a": {"b"}, "b": set()}) == []


def test_the_picture_shows_each_package_above_what_it_imports() -> None:
    graph = {"top": {"left", "right", "base"}, "left": {"base"}, "right": {"left"}, "base": set()}
    drawn = ET.fromstring(packages_picture.picture(graph))
    space = "{http://www.w3.org/2000/svg}"
    height = {text.text: float(text.get("y", 0)) for text in drawn.iter(f"{space}text")}
    assert height.keys() == graph.keys()
    assert all(height[name] < height[target] for name in graph for target in graph[name])
    # top → right → left → base says the other arrows.
    assert len([path for path in drawn.iter(f"{space}path") if path.get("marker-end")]) == 3


def test_packages_that_import_one_another_share_a_box() -> None:
    drawn = ET.fromstring(packages_picture.picture({"a": {"b"}, "b": {"a", "c"}, "c": set()}))
    assert len(list(drawn.iter("{http://www.w3.org/2000/svg}rect"))) == 2


@pytest.mark.long
def test_the_site_is_built_and_asks_nothing_of_the_network(tmp_path: Path) -> None:
    if find_spec("mkdocs") is None or find_spec("material") is None:
        pytest.skip("no mkdocs here: pip install -e '.[docs]'")
    ended = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) >= len(PAGES)
    for page in pages:
        html = page.read_text()
        assert "<!-- made: " not in html, page
        for tag in re.findall(r"<(?:script|link|img|source|iframe)\b[^>]*>", html):
            assert not re.search(r'(?:src|href|srcset)="(?:https?:)?//', tag), (page, tag)
