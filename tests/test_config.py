"""Configuration is data: typed, checked, and able to name no class but the trusted ones."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from omegaconf import OmegaConf

from harness import cli, config, train
from harness.config import Node
from harness.data import Corpus
from harness.errors import UsageError
from harness.loggers import Logger
from harness.schedule import Schedule
from harness.values import closest, describe, fits, show
from zoo.language_model import LanguageModel
from zoo_tokenizers import Tokenizer

from .conftest import Ended
from .training import settings
from .zoo_models import NAMES

GROUPS = ("data", "tokenizer", "model", "optimizer", "schedule")


def plain(*overrides: str) -> dict[str, Any]:
    """A composed configuration as plain values."""
    cfg = cli.compose(list(overrides))
    OmegaConf.set_struct(cfg, False)
    cfg.pop("hydra")
    found: Any = OmegaConf.to_container(cfg, resolve=True)
    return found


# Reading


def test_what_a_run_writes_reads_back_the_same(tmp_path: Path) -> None:
    chosen = settings(tmp_path, "train.clip=null", "eval.stride=3", 'eval.prompt="a: \\"b\\""')
    (tmp_path / "config.yaml").write_text(chosen.dump())
    assert config.load(tmp_path / "config.yaml") == chosen


def test_numbers_of_a_file_are_as_exact_as_they_were(tmp_path: Path) -> None:
    rate = math.nextafter(0.1, 1)
    chosen = config.read(cli.compose([f"optimizer.lr={rate!r}"]))
    assert yaml.safe_load(chosen.dump())["optimizer"]["lr"] == chosen.optimizer["lr"] == rate


def test_reading_takes_nothing_it_does_not_know(tmp_path: Path) -> None:
    for path, line in (
        ((), "there is no setting extra"),
        (("train",), "there is no setting train.extra. train has: steps, "),
        (("names",), "there is no setting names.extra"),
    ):
        wrong = plain()
        node = wrong
        for name in path:
            node = node[name]
        node["extra"] = 1
        with pytest.raises(UsageError, match=line):
            config.read(wrong)


@pytest.mark.parametrize("key", sorted({"seed", "train", "train.steps", "eval.prompt", *GROUPS}))
def test_reading_misses_what_is_not_there(key: str) -> None:
    wrong = plain()
    node = wrong
    *path, last = key.split(".")
    for name in path:
        node = node[name]
    del node[last]
    with pytest.raises(UsageError, match=f"^{key} has no value; give one: {key}="):
        config.read(wrong)


def test_the_local_logger_is_always_on(command: Callable[..., Ended]) -> None:
    assert set(config.read(cli.compose(["logger=[]"])).logger) == {"local"}
    wrong = plain()
    wrong["logger"] = {}
    with pytest.raises(UsageError, match="always on"):
        config.read(wrong)


@pytest.mark.parametrize("name", ["../out", "/etc", "a/b", "", ".hidden", "x" * 101, "a\nb", "a b"])
def test_a_run_can_not_be_called_what_leads_out_of_its_folder(name: str) -> None:
    wrong = plain()
    wrong["names"]["model"] = name
    with pytest.raises(UsageError, match=r"(?s)names\.model=.* must be a plain name"):
        config.read(wrong)


def test_a_file_that_is_no_configuration(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    with pytest.raises(UsageError, match=r"not a run's folder: it has no config\.yaml"):
        config.load(path)
    for content in (
        "",
        "3",
        "[1]",
        "a: [",
        "a: {b: 1}",
        "\0",
        "seed: !!python/object:os.system {}",
    ):
        path.write_text(content)
        with pytest.raises(UsageError):
            config.load(path)


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (1, int, True),
        (1.0, int, False),
        (True, int, False),
        (1, float, True),
        (True, float, False),
        ("1", float, False),
        (0, bool, False),
        (None, int | None, True),
        ("a", int | None, False),
        ([1, 2.0], list[float], True),
        ([1, "a"], list[float], False),
        ("ab", list[str], False),
        ([1, 2], tuple[int, int], True),
        ([1], tuple[int, int], False),
        ([1, 2, 3], tuple[int, ...], True),
        ([], list, True),
        ({"a": 1}, dict[str, int], True),
        ({"a": "b"}, dict[str, int], False),
        ({1: 1}, dict[str, int], False),
        ("abc", float | torch.Tensor, False),
        (0.1, float | torch.Tensor, True),
        ("/x", Path, True),  # no plain type: the constructor judges
        ("/x", Path | None, True),
    ],
)
def test_types(value: object, hint: Any, expected: bool) -> None:
    assert fits(value, hint) is expected


def test_words() -> None:
    assert describe(float | torch.Tensor | None) == "a number or null"
    assert describe(tuple[float, int]) == "a list: [a number, a whole number]"
    assert describe(tuple[int, ...]) == "a list: [a whole number, …]"
    assert [show(value) for value in (None, True, 1, 0.5, "a")] == ["null", "true", "1", "0.5", "a"]
    assert len(show("x" * 1000)) < 100
    assert closest("stepz", ["train.steps", "train.seq_len"]) == "train.steps"
    assert closest("zzzzz", ["train.steps"]) is None


# Building


class Sized:
    def __init__(self, size: int, rate: float = 0.1, *, given: int = 0) -> None:
        if size < 1:
            raise ValueError(f"size={size} must be at least 1")
        self.size, self.rate, self.given = size, rate, given


SIZED: Node = {"_target_": f"{__name__}.Sized", "size": 1}


def build(**changes: Any) -> Sized:
    node = {name: value for name, value in (SIZED | changes).items() if value is not ...}
    return config.build(node, object, "here", trust=[__name__], given=3)  # type: ignore[return-value]


def test_builds_what_the_node_says() -> None:
    built = build(size=2, rate=1)
    assert (built.size, built.rate, built.given) == (2, 1, 3)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"siz": 2}, "there is no setting here.siz: Sized does not have it. Did you mean size?"),
        ({"given": 2}, "here.given can't be set: the data decide it"),
        ({"size": "a"}, "here.size=a should be a whole number"),
        ({"size": ...}, "here.size has no value; give one: here.size=…"),
        ({"size": 0}, "here: size=0 must be at least 1"),
    ],
)
def test_refuses_arguments_before_it_builds(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError) as refused:
        build(**changes)
    assert str(refused.value) == line


# Trust

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
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
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
    "model._target_=zoo.gpt.math": "is no LanguageModel",
    "model._target_=zoo.gpt.nn.Linear": "does not exist",
    "model._target_=zoo.layers.transformer.Block": "is no LanguageModel",
    "model._target_=zoo.language_model.LanguageModel": "is no LanguageModel",
    "model._target_=harness.train.run": "is no LanguageModel",
    "model._target_=harness.data.PythonDocs": "is no LanguageModel",
    "tokenizer._target_=harness.train.Path": "is no Tokenizer",
    "tokenizer._target_=zoo_tokenizers.Tokenizer": "is no Tokenizer",
    "optimizer._target_=torch.optim.lr_scheduler.LambdaLR": "is no Optimizer",
    "optimizer._target_=torch.optim.lr_scheduler.Optimizer": "is no Optimizer",
    "optimizer._target_=torch.optim.Optimizer": "is no Optimizer",
    "optimizer._target_=harness.loop.nn.Linear": "does not exist",
    "data._target_=harness.corpus.Path": "is no Corpus",
    "schedule._target_=harness.schedule.Schedule": "is no Schedule",
    "logger.local._target_=harness.loggers.Logger": "is no Logger",
    # nested
    f"+model.inner={{_target_:{FOREIGN}.Mine}}": "only model itself names a class",
    f"+model.inner.deeper=[{{_target_:{FOREIGN}.Mine}}]": "only model itself names a class",
    f"++model.dropout._target_={FOREIGN}.Mine": "only model itself names a class",
    f"+logger.local.inner={{_target_:{FOREIGN}.Mine}}": "only logger itself names a class",
    # what Hydra would build before we are asked
    f"+hydra.callbacks.more._target_={FOREIGN}.Mine": "hydra.callbacks can't be changed",
    f"hydra.callbacks.sweep._target_={FOREIGN}.Mine": "hydra.callbacks can't be changed",
    f"hydra.launcher._target_={FOREIGN}.Mine": "hydra.launcher can't be changed",
    f"+hydra.launcher.inner._target_={FOREIGN}.Mine": "hydra.launcher can't be changed",
    f"hydra.sweeper._target_={FOREIGN}.Mine": "hydra.sweeper._target_ can't be changed",
    f"++hydra.sweeper.params={{a:{{_target_:{FOREIGN}.Mine}}}}": "hydra.sweeper.params",
    f"+hydra.job_logging.handlers={{x:{{class:{FOREIGN}.Mine}}}}": "hydra.job_logging can't be",
    f"+hydra.hydra_logging.handlers={{x:{{class:{FOREIGN}.Mine}}}}": "hydra.hydra_logging can't",
    "+hydra.job.env_set.LD_PRELOAD=x": "hydra.job.env_set can't be changed",
}


@pytest.mark.parametrize("mode", [(), ("-m",)], ids=["run", "sweep"])
@pytest.mark.parametrize("override", REFUSED)
def test_a_class_that_may_not_be_named_is_refused_and_not_imported(
    override: str, mode: tuple[str, ...], command: Callable[..., Ended], foreign: Path
) -> None:
    ended = command("train", *mode, override)
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1
    assert REFUSED[override] in ended.err
    assert not foreign.exists()
    assert FOREIGN not in sys.modules


def test_the_mark_shows_an_import(foreign: Path) -> None:
    """The negative control of the test above."""
    with pytest.raises(UsageError, match="is no Corpus"):
        config.resolve_class(f"{FOREIGN}.Mine", Corpus, "data", trust=[FOREIGN])
    assert foreign.exists()


@pytest.mark.parametrize("where", INTERFACES)
def test_every_class_of_the_project_is_itself_and_no_other_thing(where: str) -> None:
    for other, interface in INTERFACES.items():
        node = plain()
        for name in where.split("."):
            node = node[name]
        if other == where:
            config.resolve_class(node["_target_"], interface, where)
        else:
            with pytest.raises(UsageError, match=f"is no {interface.__name__}"):
                config.resolve_class(node["_target_"], interface, where)


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
        assert f"lies outside the trusted packages ({', '.join(config.TRUSTED)})" in ended.err
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


@pytest.mark.parametrize("group", [*GROUPS, "logger"])
def test_a_saved_configuration_can_name_no_foreign_class(
    group: str, command: Callable[..., Ended], foreign: Path, finished_run: Path, tmp_path: Path
) -> None:
    """Neither by `_target_` nor by saying that it is to be trusted."""
    run = tmp_path / "run"
    run.mkdir()
    for path in finished_run.iterdir():
        if path.name != "config.yaml":
            (run / path.name).symlink_to(path)
    saved = yaml.safe_load((finished_run / "config.yaml").read_text())
    node = saved["logger"]["local"] if group == "logger" else saved[group]
    node["_target_"] = f"{FOREIGN}.Mine"
    for trust in ([], [FOREIGN]):
        saved["trust"] = trust
        (run / "config.yaml").write_text(yaml.safe_dump(saved))
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
                    "sample": ("tokenizer", "model"),
                    "train": (*GROUPS, "logger"),
                }[command_line[0]]
            )
            assert (ended.code, "lies outside the trusted packages" in ended.err) == (
                (2, True) if needed else (0, False)
            )


# Anything at all


def flat(node: dict[str, Any], prefix: str = "") -> list[str]:
    return [
        key
        for name, value in node.items()
        for key in (
            f"{prefix}{name}",
            *(flat(value, f"{prefix}{name}.") if isinstance(value, dict) else ()),
        )
    ]


@cache
def base(model: str) -> dict[str, Any]:
    return plain("data=python_docs", f"model={model}")


UNKNOWN = {"nope", "model.nope", "train.nope", "logger.x", "a.b.c"}
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 70)
    | st.sampled_from([2**63, -(2**70), 10**30])
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["???", "${nope}", "cpu", "zoo.gpt.GPT", "zoo.bigram.Bigram", "os.system"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=4,
)


def like(value: object) -> st.SearchStrategy[Any]:
    """Values of the same type, so that what is refused is not the type alone."""
    if isinstance(value, bool):
        return st.booleans()
    if isinstance(value, int):
        return st.integers(-1, 70)
    if isinstance(value, float):
        return st.floats(-0.1, 1.5)
    if isinstance(value, list):
        return st.lists(st.floats(0, 1), min_size=1, max_size=3)
    return VALUES


def get(node: Any, key: str) -> Any:
    for name in key.split("."):
        node = node.get(name) if isinstance(node, dict) else None
    return node


def put(node: dict[str, Any], key: str, value: object) -> None:
    *path, last = key.split(".")
    for name in path:
        if not isinstance(node.get(name), dict):
            node[name] = {}
        node = node[name]
    node[last] = value


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    """One of ours with one to three values changed, some to others of the same type."""
    found = copy.deepcopy(base(draw(st.sampled_from(NAMES))))
    keys = st.sampled_from(sorted({*flat(found), *UNKNOWN}))
    for key in draw(st.lists(keys, min_size=1, max_size=3)):
        put(found, key, draw(like(get(found, key)) | VALUES))
    return found


@given(configurations())
@hypothesis_settings(max_examples=300, deadline=None)
def test_any_configuration_is_sound_or_refused(configuration: dict[str, Any]) -> None:
    with suppress(UsageError):
        train.check(config.read(configuration))


OVERRIDES = st.builds(
    lambda sign, key, equals, value: f"{sign}{key}{equals}{value}",
    st.sampled_from(["", "", "", "+", "++", "~"]),
    st.sampled_from(sorted({*flat(base("gpt")), *UNKNOWN}))
    | st.sampled_from(["", "model@x", "hydra.run", "hydra", "experiment", "hydra/launcher"]),
    st.sampled_from(["=", "=", "=", ""]),
    st.text(max_size=5)
    | st.sampled_from(
        ["3", "[1,2]", "{a: 1}", "1,2", "range(3)", "gpt", "null", "${seed}", "'a", "[["]
    ),
)


@given(st.lists(OVERRIDES, min_size=1, max_size=2))
@hypothesis_settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_command_line_is_sound_or_refused(overrides: list[str]) -> None:
    with suppress(UsageError):
        config.read(cli.compose(["data=python_docs", *overrides]))
