"""The pages people read: their links lead somewhere, their command lines work, their parts that are
made from the source are whole."""

from __future__ import annotations

import argparse
import re
import runpy
import shlex
import sys
import types
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from docs import import_graph
from harness.cli.hydra_app import compose
from tests.conftest import Ended
from tests.pages import PAGES, ROOT, name_of
from tests.small_runs import SMALL
from tests.zoo.laws import LAWS
from tests.zoo_models import VOCAB, random_ids, randomize
from zoo.language_model import LanguageModel

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r'\]\(([^)\s]+)\)|(?:src|srcset|href)="([^"]+)"')
INLINE = re.compile(r"`([^`\n]+)`")


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
    theirs = {
        path.format(name)
        for path in ("zoo/{}.py", "conf/model/{}.yaml", "tests/zoo/architectures/{}.py")
        for name in ("decay", "fading")
    }
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
    # A recipe that is a sweep by itself, and what measures several models.
    sweep = bool({"-m", "experiment=compare", "experiment=skills", "--scaling"} & set(words))
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


ADDING = ROOT / "docs" / "adding-a-model.md"


def python_blocks() -> list[str]:
    """The model, its losses and the plain module."""
    return [code for language, code in FENCE.findall(ADDING.read_text()) if language == "python"]


def example() -> types.ModuleType:
    module = types.ModuleType("decay")
    for code in python_blocks()[:2]:
        exec(compile(code, "decay.py", "exec"), vars(module))
    return module


@pytest.mark.parametrize("law", sorted(set(LAWS) - {"overfitting"}))
def test_the_example_of_a_model_keeps_the_laws(law: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model_class = example().Decay

    def make(random: bool = True) -> LanguageModel:
        model = model_class(VOCAB, n_embd=8).double().eval()
        return randomize(model) if random else model

    LAWS[law](make)


def test_the_example_of_a_loss() -> None:
    model = example().Sparse(VOCAB, n_embd=8, sparsity_weight=0.1)
    losses: dict[str, torch.Tensor] = {}
    features = model(random_ids(2, 9), return_features=True, losses=losses)
    assert losses == {"sparsity": features.abs().mean()}
    assert model.auxiliary == {"sparsity": 0.1}


def test_your_own_anywhere(
    command: Callable[..., Ended], small_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands of that section, one after the other, in an empty folder."""
    section = ADDING.read_text().partition("## Your own, anywhere")[2].partition("\n## ")[0]
    lines = [line for _, code in FENCE.findall(section) for line in code.splitlines()]
    lines = [line for line in lines if line.startswith("python -m harness.")]
    assert len(lines) > 3
    (tmp_path / "here" / "net.py").write_text(python_blocks()[2])
    short = (*SMALL, "train.steps=2", f"data.path={small_text}", f"cache={tmp_path / 'cache'}")
    for line in lines:
        module, words = module_of(line)
        ended = command(
            module.removeprefix("harness."), *words, *(short if is_hydra(module) else ())
        )
        assert ended.code == 0, (line, ended.err)
    for name in ("fading", "net"):
        monkeypatch.delitem(sys.modules, name)
