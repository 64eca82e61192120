"""Configuration is data: typed, checked, and able to name no class but the trusted ones."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
import yaml
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings

from harness.cli.hydra_app import compose
from harness.common.errors import UsageError
from harness.common.values import describe, fits, nearest, show
from harness.config.build import build_object
from harness.config.keys import Node
from harness.config.saved import load_settings
from harness.config.settings import read_settings
from harness.training.checks import check_settings
from tests.conftest import GROUPS, Ended, plain
from tests.small_runs import settings
from tests.zoo_models import NAMES

# Reading


def test_what_a_run_writes_reads_back_the_same(tmp_path: Path) -> None:
    chosen = settings(tmp_path, "train.clip=null", "eval.stride=3", 'eval.prompt="a: \\"b\\""')
    (tmp_path / "config.yaml").write_text(chosen.dump())
    assert load_settings(tmp_path / "config.yaml") == chosen


def test_numbers_of_a_file_are_as_exact_as_they_were(tmp_path: Path) -> None:
    rate = math.nextafter(0.1, 1)
    chosen = read_settings(compose([f"optimizer.lr={rate!r}"]))
    assert yaml.safe_load(chosen.dump())["optimizer"]["lr"] == chosen.optimizer["lr"] == rate


def test_reading_takes_nothing_it_does_not_know(tmp_path: Path) -> None:
    for path, line in (
        ((), "there is no setting extra"),
        (("train",), "there is no setting train.extra"),
        (("names",), "there is no setting names.extra. names has: data, tokenizer, model"),
    ):
        wrong = plain()
        node = wrong
        for name in path:
            node = node[name]
        node["extra"] = 1
        with pytest.raises(UsageError, match=line):
            read_settings(wrong)


@pytest.mark.parametrize(
    "key", sorted({"seed", "train", "train.batch_size", "eval.prompt", *GROUPS})
)
def test_reading_misses_what_is_not_there(key: str) -> None:
    wrong = plain()
    node = wrong
    *path, last = key.split(".")
    for name in path:
        node = node[name]
    del node[last]
    with pytest.raises(UsageError, match=f"^{key} has no value; give one: {key}="):
        read_settings(wrong)


def test_the_local_logger_is_always_on(command: Callable[..., Ended]) -> None:
    assert set(read_settings(compose(["logger=[]"])).logger) == {"local"}
    wrong = plain()
    wrong["logger"] = {}
    with pytest.raises(UsageError, match="always on"):
        read_settings(wrong)


@pytest.mark.parametrize("name", ["../out", "/etc", "a/b", "", ".hidden", "x" * 101, "a\nb", "a b"])
def test_a_run_can_not_be_called_what_leads_out_of_its_folder(name: str) -> None:
    wrong = plain()
    wrong["names"]["model"] = name
    with pytest.raises(UsageError, match=r"(?s)names\.model=.* must be a plain name"):
        read_settings(wrong)


def test_a_file_that_is_no_configuration(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    with pytest.raises(UsageError, match=r"not a run's folder: it has no config\.yaml"):
        load_settings(path)
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
            load_settings(path)


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
    assert nearest("stepz", ["train.steps", "train.seq_len"]) == "train.steps"
    assert nearest("zzzzz", ["train.steps"]) is None


# Building


class Sized:
    def __init__(self, size: int, rate: float = 0.1, *, given: int = 0) -> None:
        if size < 1:
            raise ValueError(f"size={size} must be at least 1")
        self.size, self.rate, self.given = size, rate, given


SIZED: Node = {"_target_": f"{__name__}.Sized", "size": 1}


def build(**changes: Any) -> Sized:
    node = {name: value for name, value in (SIZED | changes).items() if value is not ...}
    return build_object(node, object, "here", trust=[__name__], given=3)  # type: ignore[return-value]


def test_builds_what_the_node_says() -> None:
    built = build(size=2, rate=1)
    assert (built.size, built.rate, built.given) == (2, 1, 3)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"siz": 2}, "there is no setting here.siz: Sized does not have it. Did you mean size?"),
        ({"given": 2}, "here.given can't be set: it follows from the data"),
        ({"size": "a"}, "here.size=a should be a whole number"),
        ({"size": ...}, "here.size has no value; give one: here.size=…"),
        ({"size": 0}, "here: size=0 must be at least 1"),
    ],
)
def test_refuses_arguments_before_it_builds(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError) as refused:
        build(**changes)
    assert str(refused.value) == line


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
@hypothesis_settings(max_examples=75, deadline=None)
def test_any_configuration_is_sound_or_refused(configuration: dict[str, Any]) -> None:
    with suppress(UsageError):
        check_settings(read_settings(configuration))


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
@example(["a\0b=", "a.b.c=)"])
@hypothesis_settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_command_line_is_sound_or_refused(overrides: list[str]) -> None:
    with suppress(UsageError):
        read_settings(compose(["data=python_docs", *overrides]))
