"""What `harness.new` writes: it keeps the laws, its closed forms hold, it trains, and overwrites
nothing."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml

from harness.compute import costs
from harness.scaffold import write
from tests.conftest import Ended
from tests.small_runs import SMALL
from tests.zoo.laws import LAWS
from tests.zoo_models import VOCAB, fresh, randomize
from zoo.language_model import LanguageModel

NAME = "fading_mean"


def load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that is taken for the repository's, with the new model in it."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "tests/zoo/architectures").mkdir(parents=True)
    (folder / "zoo").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "REPOSITORY", folder.resolve())
        write.start_model(NAME, folder)
    load(f"zoo.{NAME}", folder / "zoo" / f"{NAME}.py")
    yield folder
    del sys.modules[f"zoo.{NAME}"]


def make_of(checkout: Path) -> Callable[..., LanguageModel]:
    node = yaml.safe_load((checkout / f"conf/model/{NAME}.yaml").read_text())

    def make(random: bool = True) -> LanguageModel:
        torch.manual_seed(0)
        model = fresh(node | {"n_embd": 16, "n_hidden": 24}).double().eval()
        return randomize(model) if random else model

    return make


@pytest.mark.parametrize("law", LAWS)
def test_it_keeps_the_laws(law: str, checkout: Path) -> None:
    LAWS[law](make_of(checkout))


def test_its_closed_forms_hold_and_its_mutants_are_caught(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forms = load("forms", checkout / f"tests/zoo/architectures/{NAME}.py")
    node = yaml.safe_load((checkout / f"conf/model/{NAME}.yaml").read_text())
    for vocab_size in (VOCAB, 101):
        model = fresh(node, vocab_size)
        assert costs.parameters(model)["total"] == forms.parameters(node, vocab_size)
    counted = costs.forward_flops(lambda: fresh(node), 64)
    assert counted == pytest.approx(forms.forward_flops(node, VOCAB, 64), rel=0.01)
    make = make_of(checkout)
    for mutant in forms.MUTANTS:
        assert mutant.model == NAME

        def broken(random: bool = True) -> LanguageModel:
            model = make(random)
            mutant.apply(model, monkeypatch)  # noqa: B023
            return model

        with pytest.raises(AssertionError):
            LAWS[mutant.law](broken)
    del sys.modules["forms"]


def test_a_project_of_ones_own_trains_and_its_tests_pass(
    command: Callable[..., Ended], small_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = command("new", NAME)
    assert ended.code == 0, ended.err
    here = tmp_path / "here"
    assert {path.relative_to(here).as_posix() for path in here.rglob("*.*")} == {
        f"{NAME}.py", f"conf/model/{NAME}.yaml", f"test_{NAME}.py",
    }  # fmt: skip
    assert f"model._target_={NAME}.FadingMean trust=[{NAME}]" in ended.out
    short = (*SMALL, "train.steps=2", f"data.path={small_text}", f"cache={tmp_path}")
    by_file = ("--config-dir", "conf", f"model={NAME}")
    ended = command("train", *by_file, f"trust=[{NAME}]", "model.n_embd=8", *short, "run_dir=run")
    assert ended.code == 0, ended.err
    settings = yaml.safe_load((here / "run" / "config.yaml").read_text())
    assert settings["model"]["n_embd"] == 8
    assert settings["names"]["model"] == NAME
    tests = load(f"test_{NAME}", here / f"test_{NAME}.py")
    tests.test_parameters()
    tests.test_flops()
    monkeypatch.setattr(tests, "parameters", lambda node, V: 5)
    with pytest.raises(AssertionError):
        tests.test_parameters()
    for name in (NAME, f"test_{NAME}"):
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize("path", [f"{NAME}.py", f"conf/model/{NAME}.yaml", f"test_{NAME}.py"])
def test_nothing_is_overwritten(path: str, command: Callable[..., Ended], tmp_path: Path) -> None:
    there = tmp_path / "here" / path
    there.parent.mkdir(parents=True, exist_ok=True)
    there.write_text("mine")
    ended = command("new", NAME)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert f"{path} exists" in ended.err
    assert there.read_text() == "mine"
    assert len(list((tmp_path / "here").rglob("*.*"))) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Net", "can't be a module's name"),
        ("1net", "can't be a module's name"),
        ("a/b", "can't be a module's name"),
        ("../net", "can't be a module's name"),
        ("class", "can't be a module's name"),
        ("nét", "can't be a module's name"),
        ("torch", "is installed"),
        ("random", "is installed"),
        ("zoo", "is installed"),
        ("cache", "choose another name"),
    ],
)
def test_a_name_that_can_not_be_imported_is_refused(
    name: str, message: str, command: Callable[..., Ended], tmp_path: Path
) -> None:
    ended = command("new", name)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert message in ended.err
    assert list((tmp_path / "here").iterdir()) == []
