"""A class named on the command line: which settings it gets, and what the run is called."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.cli.hydra_app import compose
from harness.common.errors import UsageError
from harness.config import own_class
from harness.config.settings import Settings, read_settings
from harness.runs.resume import resumed_settings
from tests.conftest import Ended
from tests.small_runs import SMALL
from zoo.language_model import LanguageModel

OWN = "own_models"
MINE = (f"model._target_={OWN}.Mine", f"trust=[{OWN}]")


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Models in the folder that a command runs in. Each import leaves a mark."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / f"{OWN}.py").write_text(
        f"import pathlib\npathlib.Path({str(tmp_path / 'imported')!r}).touch()\n"
        "from zoo.bigram import Bigram\n"
        "class Mine(Bigram):\n"
        "    def __init__(self, vocab_size: int, width: int = 64, n_embd: int | None = None):\n"
        "        super().__init__(vocab_size, n_embd)\n"
        "class Any(Bigram):\n"
        "    def __init__(self, vocab_size: int, **more): super().__init__(vocab_size, None)\n"
        "class Needy(Bigram):\n"
        "    def __init__(self, vocab_size: int, width: int): super().__init__(vocab_size, None)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "mine"))
    own_class._say.cache_clear()
    yield tmp_path / "imported"
    sys.modules.pop(OWN, None)


def composed(*overrides: str) -> Settings:
    settings = read_settings(compose(list(overrides)))
    settings.check("model", LanguageModel, vocab_size=256)
    return settings


def node(*overrides: str) -> dict[str, Any]:
    return {key: value for key, value in composed(*overrides).model.items() if key != "_target_"}


def test_by_its_class_alone_it_gets_only_what_is_typed(own: Path) -> None:
    assert node(*MINE) == {}
    for typed in ("model.width=32", "+model.width=32", "++model.width=32"):
        assert node(*MINE, typed) == {"width": 32}
    assert node(*MINE, "model.n_embd=8") == {"n_embd": 8}  # which the default's file has as well
    assert node("experiment=seed_mlp", *MINE) == {}


def test_composing_imports_nothing_for_it(own: Path) -> None:
    compose([*MINE, "model.width=32"])
    compose(["model=gpt", f"model._target_={OWN}.Mine"])  # not trusted
    assert not own.exists()


def test_of_a_typed_file_it_keeps_what_its_constructor_takes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert node("model=gpt", *MINE) == {"n_embd": 128}
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith(f"{OWN}.Mine does not take these settings of the model's file: block_")
    for name in ("block_size", "n_layer", "n_head", "logit_cap"):
        assert name in line
    assert "n_embd" not in line
    assert printed.out == ""
    assert node("model=lstm", "model.n_embd=8", *MINE) == {"n_embd": 8}
    # **more takes nothing by name.
    assert node("model=gru", f"model._target_={OWN}.Any", f"trust=[{OWN}]") == {}
    wrapped = ("model._target_=zoo.plain.Plain", "model.module=tests.zoo.test_plain.Net")
    assert node("model=gpt", *wrapped, "trust=[tests]") == {
        "module": "tests.zoo.test_plain.Net", "block_size": 64, "n_embd": 128, "n_head": 4,
    }  # fmt: skip


@pytest.mark.parametrize("model", [(), ("model=gpt",)])
@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("model.widht=3", "there is no setting model.widht: Mine does not have it. Did you mean"),
        ("model.n_layer=3", "there is no setting model.n_layer: Mine does not have it."),
        ("model.width=wide", "model.width=wide should be a whole number"),
        ("model.vocab_size=3", "model.vocab_size can't be set: it follows from the data"),
    ],
)
def test_all_that_is_typed_is_checked(typed: str, message: str, model: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as refused:
        composed(*model, *MINE, typed)
    assert message in str(refused.value)


def test_what_it_needs_must_be_typed() -> None:
    needy = (f"model._target_={OWN}.Needy", f"trust=[{OWN}]")
    with pytest.raises(UsageError, match=r"model\.width has no value"):
        composed(*needy)
    assert node(*needy, "model.width=3") == {"width": 3}


def test_it_gives_the_run_its_name() -> None:
    for model in ([], ["model=lstm"]):
        assert composed(*model, *MINE).names.model == "Mine"
        assert composed(*model, *MINE, "names.model=other").names.model == "other"
    assert composed("model=lstm").names.model == "lstm"


def test_settings_of_a_file_still_need_the_plus() -> None:
    with pytest.raises(UsageError, match=r"there is no setting model\.width"):
        compose(["model=gpt", "model.width=3"])


@pytest.mark.long
def test_a_sweep_over_it_and_resuming(
    command: Callable[..., Ended], small_text: Path, tmp_path: Path
) -> None:
    short = (*SMALL, "train.steps=2", f"data.path={small_text}", f"cache={tmp_path}")
    more = ("model.width=4,5", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    ended = command("train", "-m", "model=gpt", *MINE, *more, *short)
    assert ended.code == 0, ended.err
    assert ended.err.count("does not take these settings") == 1
    runs = sorted(path.parent for path in tmp_path.glob("sweep/*/config.yaml"))
    saved = [yaml.safe_load((run / "config.yaml").read_text()) for run in runs]
    widths = [each["model"]["width"] for each in saved]
    assert (sorted(widths), [each["names"]["model"] for each in saved]) == ([4, 5], ["Mine"] * 2)
    again = [f"run_dir={runs[0]}", "resume=true", *MINE, f"model.width={widths[0]}"]
    settings = resumed_settings(read_settings(compose(again)), again)
    assert settings.model == saved[0]["model"]
    assert settings.names.model == "Mine"
    again[-1] = "model.width=6"
    asked = read_settings(compose(again))
    with pytest.raises(UsageError, match=r"model\.width"):
        resumed_settings(asked, again)
