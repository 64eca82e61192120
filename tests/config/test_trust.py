"""Configuration can name no class but those that are trusted, and widens no trust by itself."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml

from harness.common.errors import UsageError
from harness.config.build import TRUSTED, resolve_class
from harness.config.saved import MOVED, load_settings, with_moved_classes
from harness.data.corpus import Corpus
from harness.loggers.base import Logger
from harness.training.schedules import Schedule
from tests.conftest import GROUPS, Ended, plain
from zoo.language_model import LanguageModel
from zoo_tokenizers import Tokenizer

INTERFACES: dict[str, type] = {
    "data": Corpus,
    "tokenizer": Tokenizer,
    "model": LanguageModel,
    "optimizer": torch.optim.Optimizer,
    "schedule": Schedule,
    "logger.local": Logger,
}
FOREIGN = "a_foreign_package"


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package on the path that leaves a mark when it is imported, and a model in it."""
    (tmp_path / "path" / FOREIGN).mkdir(parents=True)
    mark = tmp_path / "imported"
    (tmp_path / "path" / FOREIGN / "__init__.py").write_text(
        f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n"
        "from zoo.bigram import Bigram\n"
        "class Mine(Bigram):\n    '''A user's own model.'''\n"
        "class Crash(Bigram):\n"
        "    def features(self, ids_BT, cache=None):\n        raise RuntimeError('boom')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    yield mark
    sys.modules.pop(FOREIGN, None)


REFUSED = {
    # outside the trusted packages
    f"model._target_={FOREIGN}.Mine": "lies outside the trusted packages",
    f"tokenizer._target_={FOREIGN}.Mine": "lies outside the trusted packages",
    f"data._target_={FOREIGN}.Mine": "lies outside the trusted packages",
    f"optimizer._target_={FOREIGN}.Mine": "lies outside the trusted packages",
    f"schedule._target_={FOREIGN}.Mine": "lies outside the trusted packages",
    f"logger.local._target_={FOREIGN}.Mine": "lies outside the trusted packages",
    f"+logger.more._target_={FOREIGN}.Mine": "lies outside the trusted packages",
    "model._target_=os.system": "lies outside the trusted packages",
    "model._target_=builtins.eval": "lies outside the trusted packages",
    "model._target_=torch.nn.Linear": "lies outside the trusted packages",
    "model._target_=torch.hub.load": "lies outside the trusted packages",
    "model._target_=zoology.GPT": "lies outside the trusted packages",
    "model._target_=zoo": "lies outside the trusted packages",
    "model._target_=.zoo.gpt.GPT": "lies outside the trusted packages",
    "model._target_=''": "lies outside the trusted packages",
    "model._target_=null": "model names no class",
    "model._target_=5": "model names no class",
    # under a trusted package, but not what is asked for
    "model._target_=zoo.gpt.Gpt": "does not exist",
    "model._target_=zoo.nope.GPT": "does not exist",
    "model._target_=zoo..gpt.GPT": "does not exist",
    "model._target_=zoo.gpt.nn": "is not a concrete LanguageModel",
    "model._target_=zoo.gpt.nn.Linear": "does not exist",
    "model._target_=zoo.layers.transformer.Block": "is not a concrete LanguageModel",
    "model._target_=zoo.language_model.LanguageModel": "is not a concrete LanguageModel",
    "model._target_=harness.training.run.run": "is not a concrete LanguageModel",
    "model._target_=harness.data.corpus.PythonDocs": "is not a concrete LanguageModel",
    "tokenizer._target_=harness.train.Path": "is not a concrete Tokenizer",
    "tokenizer._target_=zoo_tokenizers.Tokenizer": "is not a concrete Tokenizer",
    "optimizer._target_=torch.optim.lr_scheduler.LambdaLR": "is not a concrete Optimizer",
    "optimizer._target_=torch.optim.lr_scheduler.Optimizer": "is not a concrete Optimizer",
    "optimizer._target_=torch.optim.Optimizer": "is not a concrete Optimizer",
    "optimizer._target_=harness.loop.nn.Linear": "does not exist",
    "data._target_=harness.data.corpus.Path": "is not a concrete Corpus",
    "schedule._target_=harness.training.schedules.Schedule": "is not a concrete Schedule",
    "logger.local._target_=harness.loggers.base.Logger": "is not a concrete Logger",
    # nested
    f"+model.inner={{_target_:{FOREIGN}.Mine}}": "only model itself names a class",
    f"+model.inner.deeper=[{{_target_:{FOREIGN}.Mine}}]": "only model itself names a class",
    f"++model.dropout._target_={FOREIGN}.Mine": "only model itself names a class",
    f"+logger.local.inner={{_target_:{FOREIGN}.Mine}}": "only logger.local itself names a class",
    # what Hydra would build before we are asked
    f"+hydra.callbacks.more._target_={FOREIGN}.Mine": "hydra.callbacks can't be changed",
    f"hydra.callbacks.sweep._target_={FOREIGN}.Mine": "hydra.callbacks can't be changed",
    f"hydra.launcher._target_={FOREIGN}.Mine": "hydra.launcher can't be changed",
    f"+hydra.launcher.inner._target_={FOREIGN}.Mine": "hydra.launcher can't be changed",
    f"hydra.launcher._target_=hydra_plugins.a.B +hydra.launcher.inner._target_={FOREIGN}.Mine": (
        "hydra.launcher can't be changed: its settings name a class"
    ),
    f"hydra.sweeper._target_={FOREIGN}.Mine": "hydra.sweeper._target_ can't be changed",
    f"++hydra.sweeper.params={{a:{{_target_:{FOREIGN}.Mine}}}}": "hydra.sweeper.params",
    f"experiment=compare ++hydra.sweeper.params._target_={FOREIGN}.Mine": "params._target_ is no",
    "experiment=compare ++hydra.sweeper.params.seed='${model}'": "hydra.sweeper.params",
    f"+hydra.job_logging.handlers={{x:{{class:{FOREIGN}.Mine}}}}": "hydra.job_logging can't be",
    f"+hydra.hydra_logging.handlers={{x:{{class:{FOREIGN}.Mine}}}}": "hydra.hydra_logging can't",
    "+hydra.job.env_set.LD_PRELOAD=x": "hydra.job.env_set can't be changed",
}


@pytest.mark.parametrize(
    ("mode", "override"),
    [
        *(
            pytest.param((), override, marks=[pytest.mark.long] if number % 4 else [])
            for number, override in enumerate(REFUSED)
        ),
        # A sweep takes another way through Hydra; one setting of each kind stands for all.
        *((("-m",), override) for override in REFUSED if override.startswith("hydra.launcher")),
        *((("-m",), override) for override in REFUSED if override.startswith("logger")),
    ],
)
def test_a_class_that_may_not_be_named_is_refused_and_not_imported(
    mode: tuple[str, ...], override: str, command: Callable[..., Ended], foreign: Path
) -> None:
    ended = command("train", *mode, *override.split())
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1
    assert REFUSED[override] in ended.err
    assert not foreign.exists()
    assert FOREIGN not in sys.modules


def test_the_mark_shows_an_import(foreign: Path) -> None:
    """The negative control of the test above."""
    with pytest.raises(UsageError, match="is not a concrete Corpus"):
        resolve_class(f"{FOREIGN}.Mine", Corpus, "data", trust=[FOREIGN])
    assert foreign.exists()


def test_what_a_trusted_module_imported_is_not_its_own(
    foreign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or else one module of a trusted package could lend its trust to any other."""
    (foreign.parent / "path" / "a_trusted_package.py").write_text(f"from {FOREIGN} import Mine")
    monkeypatch.delitem(sys.modules, "a_trusted_package", raising=False)
    trust, target = ["a_trusted_package"], "a_trusted_package.Mine"
    with pytest.raises(UsageError, match="is not a concrete LanguageModel"):
        resolve_class(target, LanguageModel, "model", trust)
    assert resolve_class(target, LanguageModel, "model", [*trust, FOREIGN])


@pytest.mark.parametrize("where", INTERFACES)
def test_every_class_of_the_project_is_itself_and_no_other_thing(where: str) -> None:
    for other, interface in INTERFACES.items():
        node = plain()
        for name in where.split("."):
            node = node[name]
        if other == where:
            resolve_class(node["_target_"], interface, where)
        else:
            with pytest.raises(UsageError, match=f"is not a concrete {interface.__name__}"):
                resolve_class(node["_target_"], interface, where)


def test_a_users_own_model_is_trained_by_name(
    command: Callable[..., Ended], foreign: Path, small_text: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    ended = command(
        "train", "model=bigram", f"model._target_={FOREIGN}.Mine", f"trust=[{FOREIGN}]",
        "data=text", f"data.path={small_text}", f"cache={tmp_path}", f"run_dir={run}",
        "train.steps=1", "train.seq_len=8", "eval.sample_tokens=0",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert f"trust:\n- {FOREIGN}" in (run / "config.yaml").read_text()
    del sys.modules[FOREIGN]
    foreign.unlink()
    # The run's own configuration says that the package is trusted. It does not count.
    for tool in ("evaluate", "sample"):
        ended = command(tool, run)
        assert ended.code == 2
        assert f"lies outside the trusted packages ({', '.join(TRUSTED)})" in ended.err
        assert f"--trust {FOREIGN}" in ended.err
        assert not foreign.exists()
    for tool, more in (("evaluate", []), ("sample", ["--tokens", "3"])):
        assert command(tool, run, "--trust", FOREIGN, *more).code == 0
    del sys.modules[FOREIGN]
    foreign.unlink()
    again = ("train", f"run_dir={run}", "resume=true", "train.steps=2")
    assert command(*again).code == 2
    assert not foreign.exists()
    assert command(*again, f"trust=[{FOREIGN}]").code == 0


@pytest.mark.parametrize(
    "group",
    [*(pytest.param(x, marks=[pytest.mark.long] * (x != "model")) for x in GROUPS), "logger"],
)
def test_a_saved_configuration_can_name_no_foreign_class(
    group: str, command: Callable[..., Ended], foreign: Path, finished_run: Path, tmp_path: Path
) -> None:
    """Neither by `_target_` nor by saying that it is to be trusted."""
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    saved = yaml.safe_load((finished_run / "config.yaml").read_text())
    node = saved["logger"]["local"] if group == "logger" else saved[group]
    node["_target_"] = f"{FOREIGN}.Mine"
    for trust in ([], [FOREIGN]):
        saved["trust"] = trust
        (run / "config.yaml").write_text(yaml.safe_dump(saved))
        assert load_settings(run / "config.yaml").trust == []
        for command_line in (
            ("evaluate", run),
            ("sample", run, "--tokens", "1"),
            ("train", f"run_dir={run}", "resume=true", "train.steps=99"),
        ):
            ended = command(*command_line)
            assert not foreign.exists()
            needed = (
                group
                in {
                    "evaluate": ("data", "tokenizer", "model"),
                    "sample": ("data", "tokenizer", "model"),
                    "train": GROUPS,  # a folder's loggers are not used
                }[command_line[0]]
            )
            assert (ended.code, "lies outside the trusted packages" in ended.err) == (
                (2, True) if needed else (0, False)
            )


class Half(Schedule):
    """Still without `after_warmup`."""


def test_an_unfinished_class_can_not_be_chosen() -> None:
    with pytest.raises(UsageError, match=r"Half is not a concrete Schedule"):
        resolve_class(f"{__name__}.Half", Schedule, "schedule", trust=[__name__])


@pytest.mark.parametrize("old", MOVED)
def test_classes_of_version_0_1_are_found(old: str) -> None:
    with pytest.raises(UsageError, match="does not exist"):  # else there is nothing to translate
        resolve_class(old, object, "data")
    saved = with_moved_classes({"logger": [{"_target_": old}]})
    present = saved["logger"][0]["_target_"]
    assert resolve_class(present, object, "data").__name__ == old.rpartition(".")[2]
