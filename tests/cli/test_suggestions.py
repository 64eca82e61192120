"""What a message suggests to type is understood when it is typed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from harness.cli.explain import LAUNCHERS, NO_OTHER_SWEEPER, SWEEPERS
from harness.cli.hydra_app import compose
from harness.common.errors import UsageError
from harness.config.spelling import meaning, typed
from tests.conftest import Ended

Command = Callable[..., Ended]
# Overrides that can't be parsed, and what is suggested.
SUGGESTED = {
    "run_dir=~/x": """'run_dir="~/x"'""",
    "run_dir=a b(c": """'run_dir="a b(c"'""",
    'eval.prompt=a"b': """'eval.prompt="a\\"b"'""",
    "eval.prompt='x": """'eval.prompt="'"'"'x"'""",
    "eval.prompt=${x": """'eval.prompt="\\${x"'""",
    'eval.prompt="C:\\': """'eval.prompt="\\"C:\\\\"'""",
    "eval.prompt=a:b,c": """'eval.prompt="a:b,c"'""",
    "eval.prompt=é": """'eval.prompt="é"'""",
    "seed = 3": "seed=3",
    "seed =3": "seed=3",
}


@given(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0\r\n")))
@example("~/x")
@example("C:\\")
@example('\\"')
@example("\\${a}")
@example("${a")
@example("it's")
@example("null")
@example("3")
@example("'")
@example("")
def test_a_text_is_spelt_as_hydra_and_the_shell_read_it(text: str) -> None:
    (override,) = shlex.split(typed("key", text))
    assert override.startswith("key=")
    assert meaning(override) == text


@pytest.mark.parametrize("override", SUGGESTED)
def test_what_is_suggested_can_be_typed(override: str, command: Command) -> None:
    ended = command("train", override)
    assert ended.code == 2
    assert SUGGESTED[override] in ended.err
    (again,) = shlex.split(SUGGESTED[override])
    key, value = (part.strip() for part in override.split("=", 1))
    node = compose([again])
    for name in key.split("."):
        node = node[name]
    assert str(node) == value


def test_a_tilde_is_the_home_folder(
    command: Command, small_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    small = (
        "data=text", f"data.path={small_text}", "model=bigram", "tokenizer=bytes", "device=cpu",
        "train.steps=1", "eval.sample_tokens=0", f"cache={tmp_path / 'cache'}",
    )  # fmt: skip
    assert command("train", *small, 'run_dir="~/a b"').code == 0
    assert command("train", "-m", *small, 'hydra.sweep.dir="~/sweep"').code == 0
    assert (tmp_path / "home" / "a b" / "summary.json").is_file()
    assert (tmp_path / "home" / "sweep" / "multirun.yaml").is_file()
    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--model=gpt", "there is no option --model=gpt: a setting has no dashes, model=gpt"),
        ("--train.steps=3", "a setting has no dashes, train.steps=3"),
        ("--data.path=~/x", """a setting has no dashes, 'data.path="~/x"'"""),
        ("--model gpt", "there is no option --model: a setting has no dashes, model=…"),
        ("--modle=gpt", "there is no option --modle=gpt."),
        ("--hydra-help seed=3", "--hydra-help takes no settings"),
        ("hydra.searchpath=[nope]", "hydra.searchpath: nope is not a folder"),
        ("hydra.searchpath=nope", "hydra.searchpath should be a list of folders"),
        ("model=gpt,bigram", "error: model=gpt,bigram has several values: for a sweep add -m\n"),
        ("hydra/launcher=nope", "hydra/launcher=nope does not exist. Choices: basic"),
        ("-m hydra.sweeper._target_=x.Y", "hydra.sweeper._target_ can't be changed; sweepers of"),
    ],
)
def test_other_ways_to_say_it_are_answered(line: str, expected: str, command: Command) -> None:
    ended = command("train", *line.split())
    assert ended.code == 2
    assert expected in ended.err
    assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("line", "override"),
    [
        ("search model=gpt --folder f", "train.steps=5,6"),
        ("judge model=gpt model=mlp", "train.steps=5,6"),
        ("judge mlp gpt train.steps=5", "tokenizer=char,bytes"),
        ("baseline gpt", "seed=range(3)"),
        ("ablate gpt train.steps=5 --folder f", "model=gpt,mlp"),
        ("prepare", "tokenizer=char,bytes"),
        ("prepare", "model=[gpt,mlp]"),
    ],
)
def test_a_sweep_is_advised_only_where_there_is_m(
    line: str, override: str, command: Command
) -> None:
    name, *words = line.split()
    ended = command(name, *words, override)
    assert ended.code == 2
    assert re.search(r"several values|takes one name, not a list", ended.err), ended.err
    assert "-m" not in ended.err
    assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_that_is_not_installed_is_named_by_its_package(name: str) -> None:
    with pytest.raises(UsageError) as error:
        compose([f"hydra/launcher={name}"])
    assert str(error.value) == (
        f"hydra/launcher={name} is not installed: pip install {LAUNCHERS[name]}"
    )


@pytest.mark.parametrize("name", SWEEPERS)
def test_a_sweeper_of_others_is_named_by_its_package_and_refused(name: str) -> None:
    with pytest.raises(UsageError) as error:
        compose([f"hydra/sweeper={name}"])
    assert str(error.value) == (
        f"hydra/sweeper={name} is of the package {SWEEPERS[name]}; {NO_OTHER_SWEEPER}"
    )


def test_an_installed_sweeper_is_refused(command: Command, tmp_path: Path) -> None:
    """As its package would bring it."""
    (own := tmp_path / "own" / "hydra" / "sweeper").mkdir(parents=True)
    (own / "optuna.yaml").write_text("_target_: hydra_plugins.hydra_optuna_sweeper.OptunaSweeper\n")
    ended = command("train", "-m", "--config-dir", tmp_path / "own", "hydra/sweeper=optuna")
    assert ended.code == 2
    assert NO_OTHER_SWEEPER in ended.err
    assert len(ended.err.splitlines()) == 1


def test_hydras_own_help_is_shown(command: Command) -> None:
    ended = command("train", "--hydra-help")
    assert (ended.code, ended.err) == (0, "")
    assert re.match(r"Hydra \(1\.", ended.out)


def test_a_folder_of_the_users_own_files(command: Command, tmp_path: Path) -> None:
    """By Hydra's two ways."""
    own = tmp_path / "own"
    (own / "model").mkdir(parents=True)
    (own / "model" / "mine.yaml").write_text("_target_: zoo.bigram.Bigram\nn_embd: 5\n")
    for how in (["--config-dir", own], [f"hydra.searchpath=[{own}]"]):
        ended = command("train", *how, "model=mine", "--cfg", "job", "-p", "model")
        assert (ended.code, ended.err) == (0, "")
        assert "n_embd: 5" in ended.out
    ended = command("train", f"hydra.searchpath=[{own}]", "model=mien")
    assert "model=mien does not exist. Did you mean mine?" in ended.err
