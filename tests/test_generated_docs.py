"""What is made from the source: the reference of settings, the picture of imports, the site."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from importlib.util import find_spec
from pathlib import Path

import pytest

from docs import gallery, import_graph, packages_picture, settings_reference
from harness.config import comments
from tests.pages import PAGES, ROOT, name_of


def test_every_setting_has_a_meaning() -> None:
    groups = comments.groups()
    files = {**groups, "config": [comments.read_file(ROOT / "conf" / "config.yaml")]}
    files.pop("experiment")
    for group, members in files.items():
        known = comments.meanings(members)
        for file in members:
            for setting in file.settings:
                name = setting.key.partition(".")[2] if group == "logger" else setting.key
                assert known.get(name), f"{name_of(file.path)}: {setting.key} has no comment"
            assert group == "config" or file.description, f"{name_of(file.path)} has no first line"


def test_every_choice_is_described_in_one_line() -> None:
    """The first line of its file, which help, the live page's dialog and these pages show."""
    for group in comments.group_names():
        for name, line in comments.summaries(group).items():
            assert 10 < len(line) < 120, f"{group}={name}: {line}"
            assert line.endswith("."), f"{group}={name}: {line}"
            assert "python -m" not in line, f"{group}={name}: {line}"


def test_the_reference_has_every_setting() -> None:
    reference = settings_reference.reference()
    row = "| `lr` | `1.0e-3` | `float` | peak learning rate |"
    for line in ("### model=gpt", "## experiment", row, "| `steps` | `null` | `int or null` |"):
        assert line in reference, line
    for files in comments.groups().values():
        for file in files:
            assert f"`{file.name}`" in reference or f"={file.name}" in reference or len(files) == 1


def test_comments_are_read(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(
        "# What the file\n# is.\n_target_: a.B\none: 1   # the first\ntwo: [null]\n"
        'three: "a # b"\n# The fourth.\nfour:\n  inner: null   # in there\n'
    )
    file = comments.read_file(path)
    assert (file.description, file.target) == ("What the file is.", "a.B")
    assert [(each.key, each.default, each.meaning) for each in file.settings] == [
        ("one", "1", "the first"),
        ("two", "[null]", ""),
        ("three", '"a # b"', ""),
        ("four.inner", "null", "in there"),
    ]


def test_the_readme_s_gallery_is_that_of_the_files() -> None:
    shown = (ROOT / "README.md").read_text().partition("<!-- gallery: ")[2]
    block = shown.partition(" -->\n")[2].partition("<!-- /gallery -->")[0]
    assert block == gallery.table() + "\n", "python -m docs.gallery, and put it into README.md"
    for path, names in gallery.files().items():
        row = next(row for row in gallery.rows() if str(path.relative_to(ROOT)) in row)
        what, source = row.split(" | ")[1:3]
        assert what, path
        assert re.search(r"\d{4}", source), path
        assert all(f"`{name}`" in row for name in names)


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
